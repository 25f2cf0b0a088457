-- pop, remove, update: what changes an entry that is there. Its sequence and its time
-- stay: an edit does not keep a message longer. Each raises the epoch, so that whoever holds a copy
-- drops it; whoever made the change knows the epoch before. A summary that covers the entry goes
-- too: nothing derived outlives its source.
--
-- KEYS  list head limits usage conversations queue summaries (update: data-key)

local NO_MAC = '\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0'

local function open_change(keys, args, fixed, key_count)
  exactly(keys, key_count, 'MT_KEYS')
  at_least(args, fixed, 'MT_ARGUMENTS')
  local call = conversation_names(keys, true)
  call.summaries = same(keys, 7, sub(call.list, 1, -2) .. 's')
  return call
end

-- A change that was made already, by its mark: reply, or nil.
local function repeated(call, mark)
  if mark ~= '' then
    local mac, sequence, time = marked(call, mark)
    if mac then
      return {'duplicate', call.head.epoch, call.head.epoch, sequence, time}
    end
  end
end

-- HSET arguments of the head after the change; lowest is the first sequence that changes, answer
-- what a second try is told. The epoch before stays in call.epoch, the bytes of the summaries that
-- go in call.freed.
local function head_after(call, bytes, count, mark, answer, lowest)
  local head = call.head
  call.epoch = head.epoch
  call.drops_summaries = lowest <= head.covered
  call.freed = 0
  if call.drops_summaries then
    for _, entry in ipairs(reading('summaries', 'LRANGE', call.summaries, '-64', '-1')) do
      call.freed = call.freed + #entry + ENTRY_OVERHEAD
    end
    must(call, 'UNLINK', call.summaries)
    head.covered = 0
  end
  local changes = {}
  if mark ~= '' then
    add_mark(call, changes, mark, NO_MAC, answer)
  end
  head.epoch = head.epoch + 1
  head.bytes = math.max(head.bytes + bytes - call.freed, 0)
  head.count = math.max(head.count + count, 0)
  changes[#changes + 1], changes[#changes + 2] = 'state', state_of(head)
  return changes
end

local function write_head(call, changes)
  redis.call('HSET', call.head_key, unpack(changes))
  if call.drops_summaries then
    redis.call('UNLINK', call.summaries)
  end
end

local function must_keep_books(call)
  must(call, 'HSET', call.head_key, 'state', '')
  must(call, 'HSET', call.usage_key, 'bytes', '')
end

do

-- The last entry that is alive: its distance from the end (1 is the last), itself; or nil.
local function last_alive(call)
  local index = call.length
  while index > 0 do
    local start = math.max(index - CHUNK, 0)
    local chunk = reading('list', 'LRANGE', call.list, decimal(start), decimal(index - 1))
    for place = #chunk, 1, -1 do
      local sequence, time, _, kind = peek(chunk[place])
      if not sequence then
        refuse('MT_DAMAGED')
      elseif time < call.cutoff then
        return nil
      elseif not is_tombstone(kind) then
        return call.length - (start + place) + 1, chunk[place], sequence, time
      end
    end
    index = start
  end
end

-- ARGV  mark expected-sequence agent event
-- reply ok epoch-before epoch sequence now entry | empty … | duplicate … | conflict epoch last now
local function pop(keys, args)
  local call = open_change(keys, args, 4, 7)
  exactly(args, 4, 'MT_ARGUMENTS')
  local mark = optional_text(args, 1, MARK_BYTES)
  local expected = optional_integer(args, 2, 1e12)
  local agent = text(args, 3, 1, 40)
  local event = text(args, 4, 0, MAX_EVENT)
  load_limits(call)
  open_audit(call, event)
  local head = load_head(call)
  local before = repeated(call, mark)
  if before then
    return before
  end
  load_usage(call, agent)
  local distance, entry, sequence, time = last_alive(call)
  if expected and expected ~= (sequence or 0) then
    write_event(call, 'C', head.last)
    return {'conflict', head.known and head.epoch or 0, head.last, call.now}
  elseif not distance then
    write_event(call, 'O', 0)
    return {'empty', head.epoch, head.epoch, 0, call.now}
  end
  -- Over quota LSET is gone and RPOP stays; the tombstones behind it go with the entry.
  local cuts = not redis.acl_check_cmd('LSET', call.list, '-1', '')
  local bytes = HEADER - #entry
  if cuts then
    must(call, 'RPOP', call.list, decimal(distance))
    bytes = -(#entry + ENTRY_OVERHEAD + (distance - 1) * (HEADER + ENTRY_OVERHEAD))
  end
  must_keep_books(call)
  local ends = cuts and distance == call.length
  if ends then
    reading('conversations', 'ZCARD', call.members_key)
    must(call, 'ZREM', call.members_key, call.where)
  end
  local changes = head_after(call, bytes, -1, mark, sequence, sequence)

  if cuts then
    redis.call('RPOP', call.list, decimal(distance))
  else
    redis.call('LSET', call.list, decimal(-distance), tombstone(sequence, time))
  end
  write_head(call, changes)
  if ends then
    redis.call('ZREM', call.members_key, call.where)
  end
  bytes = bytes - call.freed - (ends and CONVERSATION_OVERHEAD or 0)
  write_usage(call, bytes, -1, ends and -1 or 0, 1)
  write_event(call, 'O', sequence)
  return {'ok', call.epoch, head.epoch, sequence, call.now, entry}
end

-- ARGV  mark agent event, then sequences
-- reply ok epoch-before epoch removed now
local function remove(keys, args)
  local call = open_change(keys, args, 4, 7)
  if #args - 3 > MAX_BATCH then
    refuse('MT_ARGUMENTS 4')
  end
  local mark = optional_text(args, 1, MARK_BYTES)
  local agent = text(args, 2, 1, 40)
  local event = text(args, 3, 0, MAX_EVENT)
  local sequences = {}
  for place = 4, #args do
    sequences[integer(args, place, 1, 1e12)] = true
  end
  load_limits(call)
  open_audit(call, event)
  local head = load_head(call)
  local before = repeated(call, mark)
  if before then
    return before
  end
  load_usage(call, agent)
  local found, bytes, highest, lowest = {}, 0, 0, head.last
  for sequence in pairs(sequences) do
    local index, exact = locate(call, sequence)
    if exact then
      local entry = reading('list', 'LINDEX', call.list, decimal(index))
      local _, time, _, kind = peek(entry)
      if not is_tombstone(kind) then
        found[#found + 1] = {index = index, entry = tombstone(sequence, time)}
        bytes = bytes + HEADER - #entry
        highest, lowest = math.max(highest, sequence), math.min(lowest, sequence)
      end
    end
  end
  if #found == 0 then
    write_event(call, 'O', 0)
    return {'ok', head.epoch, head.epoch, 0, call.now}
  end
  must(call, 'LSET', call.list, '0', '')
  must_keep_books(call)
  local changes = head_after(call, bytes, -#found, mark, #found, lowest)

  for _, one in ipairs(found) do
    redis.call('LSET', call.list, decimal(one.index), one.entry)
  end
  write_head(call, changes)
  write_usage(call, bytes - call.freed, -#found, 0, #found)
  write_event(call, 'O', highest)
  return {'ok', call.epoch, head.epoch, #found, call.now}
end

-- ARGV  sequence expected-epoch tokens tag data-key agent event record
-- reply ok epoch-before epoch sequence now | duplicate … | conflict epoch last now
local function update(keys, args)
  local call = open_change(keys, args, 8, 8)
  exactly(args, 8, 'MT_ARGUMENTS')
  subject_of(keys, 8, call.prefix, 'k:')
  local sequence = integer(args, 1, 1, 1e12)
  local expected = optional_integer(args, 2, 1e15)
  local tokens = integer(args, 3, 0, 16777215)
  local tag = optional_text(args, 4, 8)
  local dek = text(args, 5, 44, 44)
  local agent = text(args, 6, 1, 40)
  local event = text(args, 7, 0, MAX_EVENT)
  local record = args[8]
  load_limits(call)
  open_audit(call, event)
  if #record > MAX_RECORD then
    refuse(format('MT_TOO_LARGE %d %d', #record, MAX_RECORD))
  end
  text(args, 8, 1, MAX_RECORD)
  local head = load_head(call)
  local index, exact = locate(call, sequence)
  local old = exact and reading('list', 'LINDEX', call.list, decimal(index))
  local _, time, _, kind = peek(old)
  if not old or is_tombstone(kind) or time < call.cutoff then
    refuse('MT_NOT_FOUND')
  end
  local entry = header(sequence, time, tokens, tag) .. record
  -- A record holds a random nonce: the same bytes are the same attempt.
  if old == entry then
    return {'duplicate', head.epoch, head.epoch, sequence, time}
  elseif expected and expected ~= head.epoch then
    write_event(call, 'C', head.last)
    return {'conflict', head.epoch, head.last, call.now}
  end
  if check_data_key(call, keys[8], dek, false) then
    refuse('MT_KEY_ABSENT')
  end
  load_usage(call, agent)
  local bytes = #entry - #old
  check_quota(call, bytes, 1, 0)
  must(call, 'LSET', call.list, decimal(index), '')
  must_keep_books(call)
  local changes = head_after(call, bytes, 0, '', sequence, sequence)

  redis.call('LSET', call.list, decimal(index), entry)
  write_head(call, changes)
  write_usage(call, bytes - call.freed, 0, 0, 1)
  write_event(call, 'O', sequence)
  return {'ok', call.epoch, head.epoch, sequence, call.now}
end

offer('update', update, {})
-- Removing works on a full server too.
offer('pop', pop, {'allow-oom'})
offer('remove', remove, {'allow-oom'})

end
