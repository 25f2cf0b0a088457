-- lease and summarise: one summariser at a time, and a summary is kept only if nothing that
-- it was made from has changed since. summaries reads them.
--
-- KEYS  list head limits usage conversations queue summaries (summarise: data-key)

do

local MAX_LEASE = 600000           -- ms
local LEASE_FORMAT = '>c16I6'
local LEASE_BYTES = 22

local function lease_holder(call)
  local stored_lease = reading('head', 'HGET', call.head_key, 'lease')
  if not stored_lease or #stored_lease ~= LEASE_BYTES then
    return nil, 0
  end
  local holder, until_when = unpack_bytes(LEASE_FORMAT, stored_lease)
  if until_when <= call.now then
    return nil, 0
  end
  return holder, until_when
end

-- The oldest time of a summary that is still read: never longer than what it was made from.
local function derived_cutoff(call)
  local cutoff = limit(reading('limits', 'HGET', call.limits_key, 'cutoff_derived')) or 0
  return math.max(cutoff, call.cutoff)
end

-- The last summary and its time. Where it has expired or is gone, nothing is covered: what is left
-- of its sources is summarised anew.
local function last_summary(call)
  local entry = reading('summaries', 'LINDEX', call.summaries, '-1')
  local _, time = peek(entry)
  if time and time >= derived_cutoff(call) then
    return entry, time
  end
  call.head.covered = 0
end

-- ARGV  holder milliseconds (0 gives it back)
-- reply ok|busy epoch covered last now until
local function lease(keys, args)
  local call = open_change(keys, args, 2, 7)
  exactly(args, 2, 'MT_ARGUMENTS')
  local holder = text(args, 1, 16, 16)
  local duration = integer(args, 2, 0, MAX_LEASE)
  load_limits(call)
  local head = load_head(call)
  local other, until_when = lease_holder(call)
  if not head.known then
    refuse('MT_NOT_FOUND')
  elseif other and other ~= holder then
    return {'busy', head.epoch, head.covered, head.last, call.now, until_when}
  end
  last_summary(call)
  must(call, 'HSET', call.head_key, 'lease', '')
  redis.call('HSET', call.head_key, 'lease', pack(LEASE_FORMAT, holder, call.now + duration))
  return {'ok', head.epoch, head.covered, head.last, call.now, call.now + duration}
end

-- ARGV  holder epoch covered-before covered tokens data-key flags agent event record
-- flags f: the summary before is part of this one, which takes its place
-- reply ok epoch covered now | duplicate … | conflict epoch last now
local function summarise(keys, args)
  local call = open_change(keys, args, 10, 8)
  exactly(args, 10, 'MT_ARGUMENTS')
  subject_of(keys, 8, call.prefix, 'k:')
  local holder = text(args, 1, 16, 16)
  local epoch = integer(args, 2, 1, 1e15)
  local covered_before = integer(args, 3, 0, 1e12)
  local covered = integer(args, 4, 1, 1e12)
  local tokens = integer(args, 5, 0, 16777215)
  local dek = text(args, 6, 44, 44)
  local folds = text(args, 7, 0, 1) == 'f'
  local agent = text(args, 8, 1, 40)
  local event = text(args, 9, 0, MAX_EVENT)
  load_limits(call)
  open_audit(call, event)
  if #args[10] > MAX_RECORD then
    refuse(format('MT_TOO_LARGE %d %d', #args[10], MAX_RECORD))
  end
  local record = text(args, 10, 1, MAX_RECORD)
  local head = load_head(call)
  local before, time_before = last_summary(call)
  if before and head.covered == covered and sub(before, HEADER + 1) == record then
    return {'duplicate', head.epoch, covered, call.now}
  elseif not head.known or epoch ~= head.epoch or covered_before ~= head.covered
    or covered > head.last or covered <= covered_before or lease_holder(call) ~= holder then
    write_event(call, 'C', head.last)
    return {'conflict', head.known and head.epoch or 0, head.last, call.now}
  end
  check_data_key(call, keys[8], dek, false)
  -- As old as the oldest of what it was made from: it goes when its source goes.
  local source = reading('list', 'LINDEX', call.list, decimal((locate(call, covered_before + 1))))
  local _, time = peek(source)
  time = time or call.now
  if folds then
    time = math.min(time, time_before or time)
  end
  local entry = header(covered, time, tokens, '') .. record
  local bytes = #entry + ENTRY_OVERHEAD
  local expired = 0
  if not before then
    expired = reading('summaries', 'LLEN', call.summaries)
    for _, old in ipairs(reading('summaries', 'LRANGE', call.summaries, '-64', '-1')) do
      bytes = bytes - #old - ENTRY_OVERHEAD
    end
  elseif folds then
    bytes = bytes - #before - ENTRY_OVERHEAD
    must(call, 'LSET', call.summaries, '-1', '')
  end
  load_usage(call, agent)
  check_quota(call, bytes, 1, 0)
  must(call, 'RPUSH', call.summaries, '')
  if expired > 0 then
    must(call, 'UNLINK', call.summaries)
  end
  must_keep_books(call)

  if expired > 0 then
    redis.call('UNLINK', call.summaries)
  end
  if folds and before then
    redis.call('LSET', call.summaries, '-1', entry)
  else
    redis.call('RPUSH', call.summaries, entry)
  end
  head.covered, head.bytes = covered, math.max(head.bytes + bytes, 0)
  redis.call('HSET', call.head_key, 'state', state_of(head))
  write_usage(call, bytes, 0, 0, 1)
  write_event(call, 'O', covered)
  return {'ok', head.epoch, covered, call.now}
end

-- KEYS  list head limits, and where reads are audited: usage conversations queue; summaries
-- ARGV  count, and where reads are audited: agent event
-- reply status epoch first last now more {entry …}
local function read_summaries(keys, args, audited)
  local call = conversation_reading(keys, args, audited, 1, 1)
  local summaries = same(keys, #keys, sub(call.list, 1, -2) .. 's')
  local count = integer(args, 1, 1, 64)
  load_head(call)
  local cutoff = derived_cutoff(call)
  local entries = {}
  for _, entry in ipairs(reading('summaries', 'LRANGE', summaries, decimal(-count), '-1')) do
    local sequence, time = peek(entry)
    if not sequence then
      refuse('MT_DAMAGED')
    elseif time >= cutoff then
      entries[#entries + 1] = entry
    end
  end
  return entries_reply(call, 'ok', false, entries)
end

offer('lease', lease, {})
offer('summarise', summarise, {})
offer_reading('summaries', read_summaries)

end
