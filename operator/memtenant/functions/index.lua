-- mt1_index: where a subject's records are: conversations as <scope>:<conversation>, contexts as
-- c:<context>, in the order in which they began. mt1_event: for what happened at the agent.

local INDEX = '^(mt:{[%w.-]+}:)i:[%w_-]+$'

-- 1 limits, and where an event may be left 2 usage, 3 queue; after the keys in front.
local function tenant_names(keys, from, prefix, audited)
  local call = {prefix = prefix, limits_key = same(keys, from, prefix .. 'o:limits')}
  if audited then
    call.usage_key = same(keys, from + 1, prefix .. 'u')
    call.queue = same(keys, from + 2, prefix .. 'q')
  end
  return call
end

-- KEYS  index limits, and where reads are audited: usage queue
-- ARGV  where reads are audited: agent event
-- reply ok now {entry …}
local function read_index(keys, args, audited)
  exactly(keys, audited and 4 or 2, 'MT_KEYS')
  exactly(args, audited and 2 or 0, 'MT_ARGUMENTS')
  local call = tenant_names(keys, 2, named(keys, INDEX), audited)
  local agent, event
  if audited then
    agent = text(args, 1, 1, 40)
    event = text(args, 2, 0, MAX_EVENT)
  end
  open_reading(call, audited, agent, event)
  local entries = reading('index', 'LRANGE', keys[1], '0', '-1')
  finish_reading(call, 0)
  return {'ok', call.now, entries}
end

-- KEYS  limits usage queue
-- ARGV  agent event
-- reply ok now: the event is in the queue, or the tenant is not audited
local function leave_event(keys, args)
  exactly(keys, 3, 'MT_KEYS')
  exactly(args, 2, 'MT_ARGUMENTS')
  local call = tenant_names(keys, 1, named(keys, '^(mt:{[%w.-]+}:)o:limits$'), true)
  text(args, 1, 1, 40)
  local event = text(args, 2, 0, MAX_EVENT)
  load_limits(call)
  open_audit(call, event)
  finish_reading(call, 0)
  return {'ok', call.now}
end
