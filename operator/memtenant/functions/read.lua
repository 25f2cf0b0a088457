-- read, delta, tail: what is there and has not expired. Tombstones are part of the
-- answer: they explain to a reader why a writer's counter is missing.
--
-- KEYS  list head limits, and where reads are audited: usage conversations queue
-- ARGV  of read:  from to limit bytes
--       of delta: epoch since limit bytes
--       of tail:  before tokens limit bytes
--       and where reads are audited: agent event
-- reply status epoch first last now more {entry …}

local CHUNK = 32

-- For a call that changes nothing but may leave an event.
local function open_reading(call, audited, agent, event)
  load_limits(call)
  if audited then
    open_audit(call, event)
    call.agent = agent
  elseif call.audited and reading('limits', 'HGET', call.limits_key, 'audit_reads') == '1' then
    refuse('MT_AUDIT_EVENT')
  end
end

local function conversation_reading(keys, args, audited, count, further)
  exactly(keys, (audited and 6 or 3) + (further or 0), 'MT_KEYS')
  exactly(args, audited and count + 2 or count, 'MT_ARGUMENTS')
  local call = conversation_names(keys, audited)
  local agent, event
  if audited then
    agent = text(args, count + 1, 1, 40)
    event = text(args, count + 2, 0, MAX_EVENT)
  end
  open_reading(call, audited, agent, event)
  return call
end

-- The drop of an event is counted where the caller may count; a read goes on where it may not.
local function finish_reading(call, sequence)
  if call.dropped and redis.acl_check_cmd('HINCRBY', call.usage_key, 'dropped', '1') then
    reading('usage', 'HINCRBY', call.usage_key, 'dropped', '1')
  end
  write_event(call, 'O', sequence)
end

local function entries_reply(call, status, more, entries)
  local head = call.head
  finish_reading(call, head.last)
  return {status, head.known and head.epoch or 0, head.first, head.last, call.now,
    more and 1 or 0, entries}
end

local function reversed(list)
  local result, count = {}, #list
  for index = 1, count do
    result[index] = list[count - index + 1]
  end
  return result
end

do

-- Entries from an index on, as long as wanted says so, within the bounds of one reply.
local function forward(call, start, final, limit, bytes)
  local entries, size, index = {}, 0, start
  while index < call.length do
    local chunk = reading('list', 'LRANGE', call.list, decimal(index), decimal(index + CHUNK - 1))
    if #chunk == 0 then
      break
    end
    for _, entry in ipairs(chunk) do
      local sequence, time = peek(entry)
      if not sequence then
        refuse('MT_DAMAGED')
      elseif sequence > final then
        return entries, false
      elseif time >= call.cutoff then
        if #entries == limit or (size > 0 and size + #entry > bytes) then
          return entries, true
        end
        entries[#entries + 1] = entry
        size = size + #entry
      end
    end
    index = index + #chunk
  end
  return entries, false
end

local function read_range(keys, args, audited)
  local call = conversation_reading(keys, args, audited, 4)
  local from = integer(args, 1, 1, 1e12)
  local final = integer(args, 2, 0, 1e12)
  local limit = integer(args, 3, 1, MAX_BATCH)
  local bytes = integer(args, 4, 1, MAX_REPLY_BYTES)
  local head = load_head(call)
  local entries, more = forward(call, locate(call, from), final == 0 and head.last or final,
    limit, bytes)
  return entries_reply(call, 'ok', more, entries)
end

local function read_delta(keys, args, audited)
  local call = conversation_reading(keys, args, audited, 4)
  local epoch = integer(args, 1, 0, 1e15)
  local since = integer(args, 2, 0, 1e12)
  local limit = integer(args, 3, 1, MAX_BATCH)
  local bytes = integer(args, 4, 1, MAX_REPLY_BYTES)
  local head = load_head(call)
  if epoch ~= (head.known and head.epoch or 0) then
    return entries_reply(call, 'stale', false, {})
  elseif since > head.last then
    return entries_reply(call, 'rewound', false, {})
  end
  local entries, more = forward(call, locate(call, since + 1), head.last, limit, bytes)
  return entries_reply(call, 'ok', more, entries)
end

local function read_tail(keys, args, audited)
  local call = conversation_reading(keys, args, audited, 4)
  local before = integer(args, 1, 0, 1e12)
  local tokens = integer(args, 2, 0, 1e12)
  local limit = integer(args, 3, 1, MAX_BATCH)
  local bytes = integer(args, 4, 1, MAX_REPLY_BYTES)
  load_head(call)
  local index = before == 0 and call.length or (locate(call, before))
  local entries, size, spent = {}, 0, 0
  while index > 0 do
    local start = math.max(index - CHUNK, 0)
    local chunk = reading('list', 'LRANGE', call.list, decimal(start), decimal(index - 1))
    for place = #chunk, 1, -1 do
      local entry = chunk[place]
      local sequence, time, cost, kind = peek(entry)
      if not sequence then
        refuse('MT_DAMAGED')
      elseif time < call.cutoff then
        return entries_reply(call, 'ok', false, reversed(entries))
      end
      cost = is_tombstone(kind) and 0 or cost
      if #entries == limit or (size > 0 and size + #entry > bytes)
        or (tokens > 0 and spent + cost > tokens) then
        return entries_reply(call, 'ok', true, reversed(entries))
      end
      entries[#entries + 1] = entry
      size, spent = size + #entry, spent + cost
    end
    index = start
  end
  return entries_reply(call, 'ok', false, reversed(entries))
end

offer_reading('read', read_range)
offer_reading('delta', read_delta)
offer_reading('tail', read_tail)

end
