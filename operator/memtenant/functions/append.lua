-- append: one record, or a batch of one writer, at the end of a conversation.
--
-- KEYS  list head limits usage conversations queue data-key subject-index
-- ARGV  writer counter expected-epoch expected-last tag data-key flags meta agent event,
--       then for each record: tokens mark record
-- flags n: the data key is new; i: write the index entry also where the conversation exists

do

local APPEND_FIXED = 10
local MAX_TRIM = 32                -- entries that one append trims
local MAX_TRIM_BYTES = 1048576     -- bytes of them that it looks at

-- What has expired at the head: how many entries, their bytes, how many of them were alive, and
-- the time and sequence of the first that stays (nil where none was seen).
local function expired_head(call)
  local count, bytes, live = 0, 0, 0
  if call.length == 0 or call.head.oldest >= call.cutoff
    or not redis.acl_check_cmd('LTRIM', call.list, '1', '-1') then
    return 0, 0, 0
  end
  while count < call.length do
    local entry = reading('list', 'LINDEX', call.list, decimal(count))
    local sequence, time, _, kind = peek(entry)
    if not sequence or time >= call.cutoff or count == MAX_TRIM or bytes > MAX_TRIM_BYTES then
      return count, bytes, live, time or call.now, sequence or call.head.first
    end
    count, bytes = count + 1, bytes + #entry + ENTRY_OVERHEAD
    live = live + (is_tombstone(kind) and 0 or 1)
  end
  return count, bytes, live
end

local function read_records(call, args)
  local records, any_mark = {}, false
  local size = (#args - APPEND_FIXED) / 3
  local bytes = 0
  for index = 1, size do
    local place = APPEND_FIXED + index * 3 - 2
    local record = args[place + 2]
    if #record > MAX_RECORD then
      refuse(format('MT_TOO_LARGE %d %d', #record, MAX_RECORD))
    end
    bytes = bytes + #record
    if bytes > MAX_BATCH_BYTES then
      refuse(format('MT_TOO_LARGE %d %d', bytes, MAX_BATCH_BYTES))
    end
    records[index] = {
      tokens = integer(args, place, 0, 16777215),
      mark = optional_text(args, place + 1, 2 * MARK_BYTES),
      record = text(args, place + 2, 1, MAX_RECORD),
    }
    any_mark = any_mark or records[index].mark ~= ''
  end
  return records, any_mark
end

local function append(keys, args)
  exactly(keys, 8, 'MT_KEYS')
  at_least(args, APPEND_FIXED + 3, 'MT_ARGUMENTS')
  local size = (#args - APPEND_FIXED) / 3
  if size ~= floor(size) or size > MAX_BATCH then
    refuse('MT_ARGUMENTS ' .. APPEND_FIXED)
  end
  local call = conversation_names(keys, true)
  subject_of(keys, 7, call.prefix, 'k:')
  local subject = subject_of(keys, 8, call.prefix, 'i:')
  local writer = text(args, 1, 8, 8)
  local counter = integer(args, 2, 1, 4294967295)
  local expected_epoch = optional_integer(args, 3, 1e15)
  local expected_last = optional_integer(args, 4, 1e12)
  local tag = optional_text(args, 5, 8)
  local dek = text(args, 6, 44, 44)
  local flags = text(args, 7, 0, 2)
  local meta = text(args, 8, 0, MAX_META)
  local agent = text(args, 9, 1, 40)
  local event = text(args, 10, 0, MAX_EVENT)

  load_limits(call)
  open_audit(call, event)
  local records, any_mark = read_records(call, args)
  local head = load_head(call)

  local first, last, time = known_write(call, writer, counter, size)
  if first then
    return {'duplicate', head.epoch, first, last, time}
  end
  if any_mark then
    for index, one in ipairs(records) do
      if one.mark ~= '' then
        local mac, sequence, when = marked(call, sub(one.mark, 1, MARK_BYTES))
        if mac then
          return {'marked', head.epoch, index, sequence, when, mac}
        end
      end
    end
  end
  if (expected_epoch and (not head.known or expected_epoch ~= head.epoch)
      and not (expected_epoch == 0 and not head.known))
    or (expected_last and expected_last ~= head.last) then
    write_event(call, 'C', head.last)
    return {'conflict', head.known and head.epoch or 0, head.last, call.now}
  end
  check_subject(call, keys[7], subject)
  local fresh_key = check_data_key(call, keys[7], dek, find(flags, 'n', 1, true) ~= nil)

  -- The entries, the quota, and what else will be written.
  load_usage(call, agent)
  local entries, added, sequence = {}, 0, head.last
  for index, one in ipairs(records) do
    sequence = sequence + 1
    entries[index] = header(sequence, call.now, one.tokens, tag) .. one.record
    added = added + #entries[index] + ENTRY_OVERHEAD
  end
  if sequence > 1099511627775 then
    refuse('MT_DAMAGED')
  end
  local trimmed, trimmed_bytes, trimmed_live, oldest, oldest_sequence = expired_head(call)
  local length = call.length - trimmed
  local begins = call.length == 0
  local change = added - trimmed_bytes + (begins and CONVERSATION_OVERHEAD or 0)
  check_quota(call, change, size, begins and 1 or 0)
  if length == 0 then
    oldest, oldest_sequence = call.now, head.last + 1
  end
  local moved = begins or trimmed > 0
  local indexed = begins or find(flags, 'i', 1, true) ~= nil

  local epoch, before = head.epoch, head.last
  local reappears = head.gone == 1
  local changes = {'writers', writers_after(call, writer, counter, size, sequence)}
  if meta ~= '' then
    changes[3], changes[4] = 'meta', meta
  end
  if begins and tag ~= '' then
    changes[#changes + 1], changes[#changes + 2] = 'tag', tag
  end
  for index, one in ipairs(records) do
    if one.mark ~= '' then
      add_mark(call, changes, sub(one.mark, 1, MARK_BYTES), sub(one.mark, MARK_BYTES + 1),
        before + index)
    end
  end
  head.last, head.gone = sequence, 0
  head.bytes = math.max(head.bytes + added - trimmed_bytes, 0)
  head.count = math.max(head.count - trimmed_live, 0) + size
  if moved then
    head.first, head.oldest = oldest_sequence, oldest
  end
  changes[#changes + 1], changes[#changes + 2] = 'state', state_of(head)

  -- May all of it be written? A type that is wrong shows in reading, so x is read too.
  must(call, 'RPUSH', call.list, '')
  must(call, 'HSET', call.head_key, 'state', '')
  must(call, 'HSET', call.usage_key, 'bytes', '')
  if moved then
    reading('conversations', 'ZCARD', call.members_key)
    must(call, 'ZADD', call.members_key, '0', call.where)
  end
  if indexed then
    reading('index', 'LRANGE', keys[8], '0', '0')
    must(call, 'RPUSH', keys[8], call.where)
  end
  if reappears then
    must(call, 'PERSIST', call.head_key)
  end

  if fresh_key then
    redis.call('HSETNX', keys[7], 'dek', dek)
  end
  redis.call('RPUSH', call.list, unpack(entries))
  if trimmed > 0 then
    redis.call('LTRIM', call.list, decimal(trimmed), '-1')
  end
  redis.call('HSET', call.head_key, unpack(changes))
  if reappears then
    redis.call('PERSIST', call.head_key)
  end
  if moved then
    redis.call('ZADD', call.members_key, decimal(oldest), call.where)
  end
  if indexed then
    redis.call('RPUSH', keys[8], call.where)
  end
  write_usage(call, change, size - trimmed_live, begins and 1 or 0, size)
  write_event(call, 'O', sequence)
  return {'ok', epoch, before + 1, sequence, call.now,
    share(call.used, call.memory_limit), share(call.conversations, call.conversations_limit)}
end

offer('append', append, {})

end
