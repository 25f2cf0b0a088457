-- index: where a subject's records are: conversations as <scope>:<conversation>, contexts as
-- c:<context>, in the order in which they began. compact: entries that lead to nothing any more
-- go. event: for what happened at the agent.

do

local INDEX = '^(mt:{[%w.-]+}:)i:[%w_-]+$'
local MAX_COMPACT = 64             -- entries that one call compacts

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

-- Whether an entry of an index leads to anything. Its keys are not declared: they are those of the
-- tenant, in the same slot.
local function leads_somewhere(prefix, where)
  local context, value = match(where, '^(c:[^:]+):([^:]+)$')
  if context then
    return redis.call('HEXISTS', prefix .. 'r:' .. context, value) == 1
  end
  local base = prefix .. 'r:' .. where
  if sub(where, 1, 2) == 'c:' then
    return redis.call('EXISTS', base) == 1
  end
  -- An append to a conversation without messages writes its entry anew.
  return redis.call('EXISTS', base .. ':l', base .. ':s', base .. ':g') > 0
    or redis.call('HEXISTS', base .. ':h', 'meta') == 1
end

-- KEYS  index limits
-- ARGV  pairs: entry, how often it is there beyond once
-- reply ok removed now
local function compact(keys, args)
  exactly(keys, 2, 'MT_KEYS')
  at_least(args, 2, 'MT_ARGUMENTS')
  if #args % 2 ~= 0 or #args > 2 * MAX_COMPACT then
    refuse('MT_ARGUMENTS 2')
  end
  local prefix = named(keys, INDEX)
  local call = {list = keys[1], usage_key = prefix .. 'u',
    limits_key = same(keys, 2, prefix .. 'o:limits')}
  local entries, spare = {}, {}
  for place = 1, #args, 2 do
    local where = text(args, place, 3, 200)
    if not match(where, '^[^:]+:[^:]+$') and not match(where, '^c:[^:]+:[^:]+$') then
      refuse('MT_ARGUMENT ' .. place)
    end
    entries[#entries + 1], spare[#spare + 1] = where, integer(args, place + 1, 0, 1e6)
  end
  load_limits(call)
  reading('index', 'LRANGE', keys[1], '0', '0')
  if call.cutoff == 0 then
    return {'ok', 0, call.now}
  end
  must(call, 'LREM', keys[1], '0', '')
  local removals = {}
  for place, where in ipairs(entries) do
    local ok, alive = pcall(leads_somewhere, prefix, where)
    if ok and not alive then
      removals[where] = 0
    elseif ok and spare[place] > 0 then
      removals[where] = spare[place]
    end
  end

  local removed = 0
  for where, count in pairs(removals) do
    removed = removed + redis.call('LREM', keys[1], decimal(count), where)
  end
  return {'ok', removed, call.now}
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

offer_reading('index', read_index)
offer('compact', compact, {'allow-oom'})
offer('event', leave_event, {'allow-oom'})

end
