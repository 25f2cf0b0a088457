-- Health of MemoryTenant, MemoryStore and RetentionPolicy for Argo CD, by the rules of kstatus:
-- being deleted, then not seen yet, then Reconciling, then Stalled, then Ready.

local function condition(status, wanted)
  for _, each in ipairs(status.conditions or {}) do
    if each.type == wanted then
      return each
    end
  end
  return nil
end

local function because(found)
  local message = found.message or ""
  local reason = found.reason or ""
  if message == "" then
    return reason
  end
  if reason == "" then
    return message
  end
  return reason .. ": " .. message
end

local metadata = obj.metadata or {}
local status = obj.status or {}

if metadata.deletionTimestamp ~= nil then
  -- A legal hold, a minimum retention or a store that is away may keep it; the condition says which.
  local blocked = condition(status, "DeletionBlocked")
  if blocked ~= nil and blocked.status == "True" then
    return { status = "Degraded", message = because(blocked) }
  end
  return { status = "Progressing", message = "being deleted" }
end

if status.observedGeneration == nil then
  return { status = "Progressing", message = "waiting for the operator" }
end
if metadata.generation ~= nil and status.observedGeneration ~= metadata.generation then
  return { status = "Progressing", message = "waiting for the operator to see the change" }
end

local stalled = condition(status, "Stalled")
if stalled ~= nil and stalled.status == "True" then
  return { status = "Degraded", message = because(stalled) }
end
local reconciling = condition(status, "Reconciling")
if reconciling ~= nil and reconciling.status == "True" then
  return { status = "Progressing", message = because(reconciling) }
end

local ready = condition(status, "Ready")
if ready ~= nil and ready.status == "True" then
  return { status = "Healthy", message = because(ready) }
end
if ready ~= nil and ready.status == "False" then
  return { status = "Degraded", message = because(ready) }
end
return { status = "Progressing", message = ready ~= nil and because(ready) or "waiting for Ready" }
