-- expire, context_expire: what has passed its cut-off goes, also where nobody appends.
-- expiring, context_expiring: what would go, now or at a cut-off to come.
--
-- The operator calls them. An agent may, and gains nothing: what its rules do not let it remove by
-- hand (a hold, a minimum) it does not remove here. Cut-offs of what is removed come from o:limits
-- alone; without one, which is what a legal hold means, nothing goes.
--
-- An agent can write a list directly. An entry dated into the future would never expire: it gets
-- the server's time. Nor would a message whose date is moved again and again: its writer and when
-- that was opened are under the record's MAC, and a look at a conversation closes each writer that
-- was opened a day before. (This version takes no more of such a writer anyway; version 1 would,
-- and its SDKs go on under a new one.) What the operator passed over is in o:passes: a message is
-- no younger than the end of the first pass that began a day after its writer was opened. (Not
-- under a minimum: there no agent can move a date.) What has no date is as old as the entry behind
-- it, else it is counted and stays.
--
-- What goes of a tenant that is audited is counted in o:untold in the same step. The operator tells
-- the count and takes it away in one transaction, so that every removal is told once, wherever it
-- is cut off. Who may not count there, as no agent may, removes nothing of such a tenant.

do

local MAX_LOOK = 2000              -- entries that one call looks at
local MAX_LOOK_BYTES = 4194304     -- bytes of them
local MAX_FIELD_NAME = 65536       -- bytes of a name that a call can go on behind
local HDEL_AT_ONCE = 1000          -- Lua's stack bounds what unpack may return

local RECORD_MAGIC, RECORD_PLAIN, RECORD_GCM = 0xFA, 0x10, 0x11
local RECORD_WRITER = 18           -- bytes of a record before its writer, which begins with a time

local CLOSED = '\0\0\0\0\0\0\0\0'   -- the id of a writer that was closed
local RUN_FORMAT, RUN_BYTES = '>I6I6I6', 18   -- of passes: from, to, longest time to an end
local MAX_PASSES = 4096            -- bytes of them

-- When a message's writer is a day old; nil where it names none.
local function closes_at(entry, kind)
  local at = (kind == TAGGED and TAGGED_HEADER or HEADER) + 1
  if #entry < at + RECORD_WRITER + 3 then
    return nil
  end
  local magic, form = unpack_bytes('>BB', entry, at)
  if magic == RECORD_MAGIC and (form == RECORD_PLAIN or form == RECORD_GCM) then
    return unpack_bytes('>I4', entry, at + RECORD_WRITER) * 1000 + WRITER_LIFE
  end
end

-- When the first pass that began at that time or later had ended, at the latest; nil before that.
-- (memtenant.functions.passes, which writes it.)
local function closed_by(call, time)
  if not call.passes then
    local passes = redis.pcall('GET', call.prefix .. 'o:passes')
    call.passes = type(passes) == 'string' and passes or ''
  end
  for at = 1, #call.passes - RUN_BYTES + 1, RUN_BYTES do
    local from, to, slack = unpack_bytes(RUN_FORMAT, call.passes, at)
    if to >= time then
      return math.max(from, time) + slack
    end
  end
end

-- The writers of a head without those that were opened a day ago; nil where there is none of them.
-- When these wrote last stays: it tells the age of a conversation without messages.
local function closed_writers(call, writers)
  if not writers or #writers % WRITER_BYTES ~= 0 then
    return nil
  end
  local left, last, closes = {}, 0, false
  for at = 1, #writers, WRITER_BYTES do
    local id, _, _, _, time = unpack_bytes(WRITER_FORMAT, writers, at)
    if unpack_bytes('>I4', id) * 1000 + WRITER_LIFE > call.now then
      left[#left + 1] = sub(writers, at, at + WRITER_BYTES - 1)
    else
      last, closes = math.max(last, time), closes or id ~= CLOSED
    end
  end
  return closes and pack(WRITER_FORMAT, CLOSED, 0, 0, 0, last) .. table.concat(left) or nil
end

-- What of a list has passed the cut-off, from an index on: so many entries at its head (trim), and
-- what is to be put in the place of others (sets). An entry behind a younger one leaves a
-- tombstone, which tells a reader why a writer's counter is missing. A summary that
-- ends before the first of its sources has lost all that it was made from.
local function outdated(call, what, key, start, limit, cutoff, sources)
  local found = {
    trim = 0, live = 0, bytes = 0, sets = {}, redated = 0, undated = 0, kept = 0,
    length = reading(what, 'LLEN', key), oldest = nil, oldest_sequence = nil, next = nil,
  }
  local at_head, index, size, strange, strange_bytes = start == 0, start, 0, 0, 0
  while index < found.length do
    if index - start >= limit or size > MAX_LOOK_BYTES then
      found.next = index
      break
    end
    local final = math.min(index + CHUNK, start + limit) - 1
    for _, entry in ipairs(reading(what, 'LRANGE', key, decimal(index), decimal(final))) do
      local sequence, claimed, tokens, kind = peek(entry)
      local bound = what == 'list' and sequence and not call.keeps_dates
      local time, closes = claimed, bound and closes_at(entry, kind)
      size = size + #entry
      if closes and time > closes then
        time = math.min(time, closed_by(call, closes) or time)
      end
      if sequence and time > call.now + CLOCK_AHEAD then
        time = call.now
      end
      if sources and sequence and sequence < sources then
        time = 0
      end
      if not sequence then
        strange, strange_bytes = strange + 1, strange_bytes + #entry + ENTRY_OVERHEAD
      elseif time < cutoff and at_head then
        found.trim = index + 1
        found.bytes = found.bytes + strange_bytes + #entry + ENTRY_OVERHEAD
        found.live = found.live + strange + (is_tombstone(kind) and 0 or 1)
        strange, strange_bytes = 0, 0
      elseif time < cutoff then
        if not is_tombstone(kind) then
          found.sets[#found.sets + 1] = {index = index, entry = tombstone(sequence, time)}
          found.bytes, found.live = found.bytes + #entry - HEADER, found.live + 1
        end
      else
        if time ~= claimed then
          found.sets[#found.sets + 1] = {
            index = index,
            entry = pack(HEADER_FORMAT, kind, sequence, time, tokens) .. sub(entry, HEADER + 1),
          }
          found.redated = found.redated + 1
        end
        at_head = false
        found.kept = found.kept + 1
        if not found.oldest then
          found.oldest, found.oldest_sequence = time, sequence
        end
      end
      index = index + 1
    end
  end
  found.undated, found.kept = strange, found.kept + strange
  return found
end

-- The cut-offs of content and of what is derived from it, never beyond now.
local function expiry_of(call, content, derived)
  load_limits(call)
  local fields = reading('limits', 'HMGET', call.limits_key, 'cutoff_derived', 'held')
  call.keeps_dates = fields[2] == '1'
  if not content then
    content = call.cutoff
    derived = limit(fields[1]) or 0
    content, derived = math.min(content, call.now), math.min(derived, call.now)
  end
  -- A hold takes both away.
  return content, math.max(content, derived)
end

-- Counters and members are advisory: where an agent put something else in their place, what has
-- expired goes all the same.
local function load_books(call)
  local usage_fields = redis.pcall('HMGET', call.usage_key, 'bytes', 'messages', 'conversations')
  if not usage_fields.err then
    call.counters = {
      stored(usage_fields[1]) or 0, stored(usage_fields[2]) or 0, stored(usage_fields[3]) or 0,
    }
  end
  local score = redis.pcall('ZSCORE', call.members_key, call.where)
  if type(score) ~= 'table' then
    call.keeps_members, call.score = true, score and tonumber(score)
  end
end

-- What x should say: a time, or false for nothing.
local function must_write_books(call, oldest)
  if call.counters then
    must(call, 'HSET', call.usage_key, 'bytes', '')
  end
  call.member = nil
  if call.keeps_members and oldest == false and call.score then
    must(call, 'ZREM', call.members_key, call.where)
    call.member = false
  elseif call.keeps_members and oldest and call.score ~= oldest then
    must(call, 'ZADD', call.members_key, '0', call.where)
    call.member = oldest
  end
end

local function write_books(call, bytes, messages, conversations)
  if call.counters and (bytes ~= 0 or messages ~= 0 or conversations ~= 0) then
    local counters = call.counters
    redis.call('HSET', call.usage_key,
      'bytes', decimal(math.max(counters[1] - bytes, 0)),
      'messages', decimal(math.max(counters[2] - messages, 0)),
      'conversations', decimal(math.max(counters[3] - conversations, 0)))
  end
  if call.member == false then
    redis.call('ZREM', call.members_key, call.where)
  elseif call.member then
    redis.call('ZADD', call.members_key, decimal(call.member), call.where)
  end
end

-- Asks whether so many records may be counted as removed.
local function must_count(call, many)
  if not call.audited or many == 0 then
    return
  end
  call.untold = call.prefix .. 'o:untold'
  if not redis.acl_check_cmd('HINCRBY', call.untold, 'calls', '1')
    or not redis.acl_check_cmd('HSET', call.untold, 'content', '0') then
    refuse('MT_DENIED untold')
  end
  local before = reading('untold', 'HMGET', call.untold, 'content', 'derived')
  call.before_content = math.max(stored(before[1]) or 0, call.cutoff)
  call.before_derived = math.max(stored(before[2]) or 0, call.cutoff_derived or 0)
end

local function write_count(call, kind, many)
  if call.untold and many > 0 then
    redis.call('HINCRBY', call.untold, kind, decimal(many))
    redis.call('HINCRBY', call.untold, 'calls', '1')
    redis.call('HSET', call.untold,
      'content', decimal(call.before_content), 'derived', decimal(call.before_derived))
  end
end

-- When a conversation without messages was last written to; nil where nothing tells.
local function last_activity(call, writers)
  local latest = call.head.known and call.head.epoch or 0
  if writers and #writers % WRITER_BYTES == 0 then
    for at = 1, #writers, WRITER_BYTES do
      local _, _, _, _, time = unpack_bytes(WRITER_FORMAT, writers, at)
      latest = math.max(latest, time)
    end
  end
  if latest > 0 and latest <= call.now + CLOCK_AHEAD then
    return latest
  end
end

local function load_expiring(keys, args, fixed)
  exactly(keys, 8, 'MT_KEYS')
  exactly(args, fixed, 'MT_ARGUMENTS')
  local call = conversation_names(keys, true)
  local base = sub(call.list, 1, -2)
  call.summaries, call.checkpoints = same(keys, 7, base .. 's'), same(keys, 8, base .. 'g')
  local part = text(args, 1, 1, 1)
  if part ~= 'l' and part ~= 's' and part ~= 'g' then
    refuse('MT_ARGUMENT 1')
  end
  local start, most = integer(args, 2, 0, 1e12), integer(args, 3, 1, MAX_LOOK)
  local content, derived = expiry_of(call,
    fixed == 5 and optional_integer(args, 4, 1e15) or nil,
    fixed == 5 and (optional_integer(args, 5, 1e15) or 0) or nil)
  local fields = reading('head', 'HMGET', call.head_key, 'state', 'writers')
  local head = {known = fields[1] and #fields[1] == STATE_BYTES}
  call.head, call.cutoff, call.cutoff_derived = head, content, derived
  if head.known then
    head.epoch, head.first, head.last, head.bytes, head.count, head.oldest, head.evicted,
      head.gone, head.marks, head.covered = unpack_bytes(STATE_FORMAT, fields[1])
  end
  local found
  if part == 'g' then
    outdated_checkpoints(call)
    local count = #call.drops + #call.tombstones / 2
    found = {
      trim = count, live = count, bytes = call.dropped_bytes, sets = {}, redated = 0, undated = 0,
      kept = call.fields - #call.drops, length = call.fields, next = nil,
    }
    found.oldest = found.kept > 0 and call.oldest or nil
  elseif part == 's' then
    -- An agent may date a summary anew: what it was made from tells that it is older.
    local first, sources = reading('list', 'LINDEX', call.list, '0'), nil
    if not call.keeps_dates then
      sources = first and peek(first) or not first and math.huge
    end
    found = outdated(call, 'summaries', call.summaries, start, most, derived, sources)
  else
    found = outdated(call, 'list', call.list, start, most, content)
    found.writers = start == 0 and closed_writers(call, fields[2]) or nil
    -- What a graph keeps of the thread has times of its own.
    found.graph = reading('checkpoints', 'EXISTS', call.checkpoints) > 0
    found.empties = found.length > 0 and start == 0 and found.trim == found.length
    found.ends = found.empties and not found.graph
    if found.graph then
      found.kept = found.kept + 1
    elseif found.length == 0 and reading('head', 'HLEN', call.head_key) > 0
      and reading('head', 'PTTL', call.head_key) < 0 then
      -- Its messages went before it: what is left of it is as old as the last write.
      local active = last_activity(call, fields[2])
      found.ends = active ~= nil and active < content
      found.kept, found.undated = found.ends and 0 or 1, active and 0 or 1
    end
  end
  return call, found, part
end

-- reply ok next (-1: at the end) live entries bytes ends redated undated kept oldest now and, of
-- what was removed whole, its summaries, and whether writers are closed; a call that removes goes
-- on from next as the list is then
local function expiry_reply(call, found, removed)
  local next = -1
  if found.next then
    next = found.next - (removed and found.trim or 0)
  end
  return {'ok', next, found.live, found.trim + #found.sets - found.redated, found.bytes,
    found.ends and 1 or 0, found.redated, found.undated, found.kept, found.oldest or 0, call.now,
    found.summaries or 0, found.writers and 1 or 0}
end

local function must_close(call, found)
  if found.writers then
    must(call, 'HSET', call.head_key, 'writers', '')
  end
end

local function close_writers(call, found)
  if found.writers then
    redis.call('HSET', call.head_key, 'writers', found.writers)
  end
end

-- KEYS  list head limits usage conversations queue summaries checkpoints
-- ARGV  part (l messages, s summaries, g what a graph keeps: as a whole) start limit
--       cutoff-content cutoff-derived ('': of o:limits)
local function expiring(keys, args)
  local call, found = load_expiring(keys, args, 5)
  return expiry_reply(call, found, false)
end

-- Everything of the conversation, as delete leaves it: its head stays a while for late retries.
local function end_conversation(call, found)
  local head = call.head
  local bytes = head.known and head.bytes or found.bytes
  local summaries = redis.pcall('LLEN', call.summaries)
  found.summaries = type(summaries) == 'number' and summaries or 0
  must_count(call, found.live + found.summaries)
  must(call, 'UNLINK', call.list, call.summaries, call.checkpoints)
  must(call, 'HSET', call.head_key, 'state', '')
  must(call, 'HDEL', call.head_key, 'meta', 'tag', 'lease')
  must(call, 'PEXPIRE', call.head_key, decimal(LEAVE_TIME))
  must_close(call, found)
  must_write_books(call, false)
  local ended = found.length > 0 and 1 or 0

  redis.call('UNLINK', call.list, call.summaries, call.checkpoints)
  redis.call('HDEL', call.head_key, 'meta', 'tag', 'lease')
  if head.known then
    head.epoch, head.first, head.oldest = head.epoch + 1, head.last + 1, 0
    head.bytes, head.count, head.gone, head.covered = 0, 0, 1, 0
    redis.call('HSET', call.head_key, 'state', state_of(head))
  end
  close_writers(call, found)
  redis.call('PEXPIRE', call.head_key, decimal(LEAVE_TIME))
  write_books(call, bytes + ended * CONVERSATION_OVERHEAD, found.live, ended)
  write_count(call, 'messages', found.live)
  write_count(call, 'summaries', found.summaries)
end

-- What a graph keeps of the thread. x says when the next thing of the thread is due.
local function expire_graph(call, found)
  local first = reading('list', 'LINDEX', call.list, '0')
  local _, time = peek(first)
  local empties = found.length > 0 and found.kept == 0
  local oldest = math.min(found.oldest or call.now, time or call.now)
  if found.length == 0 then
    oldest = nil
  elseif empties and not first then
    oldest = false
  end
  if found.trim > 0 then
    must(call, 'UNLINK', call.checkpoints)
    must(call, 'HDEL', call.checkpoints, '')
    must(call, 'HSET', call.checkpoints, '', '')
    must(call, 'HDEL', call.head_key, 'saved')
    must(call, 'HSET', call.head_key, 'saved', '')
  end
  must_write_books(call, oldest)
  must_count(call, found.live)

  if found.trim > 0 then
    expire_checkpoints(call)
  end
  write_books(call, found.bytes, 0, 0)
  write_count(call, 'checkpoints', found.live)
  return expiry_reply(call, found, true)
end

-- ARGV  part start limit
local function expire(keys, args)
  local call, found, part = load_expiring(keys, args, 3)
  load_books(call)
  if call.cutoff == 0 then
    must_close(call, found)
    close_writers(call, found)
    found = {live = 0, trim = 0, sets = {}, redated = 0, bytes = 0, undated = 0, kept = 0,
      writers = found.writers}
    return expiry_reply(call, found, true)
  elseif part == 'g' then
    return expire_graph(call, found)
  elseif found.ends then
    end_conversation(call, found)
    return expiry_reply(call, found, true)
  end
  local key = part == 'l' and call.list or call.summaries
  local head, messages, oldest = call.head, 0, nil
  if found.trim > 0 then
    must(call, 'LTRIM', key, '1', '-1')
  end
  if #found.sets > 0 then
    must(call, 'LSET', key, '0', '')
  end
  if part == 'l' then
    messages = found.live
    local start = integer(args, 2, 0, 1e12)
    if start == 0 and found.kept > 0 and not found.graph then
      -- Where nothing tells a time it is looked at again a period later.
      oldest = found.oldest or call.now
    end
    if found.length == 0 and not found.graph then
      oldest = reading('list', 'EXISTS', call.summaries) > 0 and call.now
    end
    if start == 0 and found.oldest and head.known then
      head.first, head.oldest = found.oldest_sequence, found.oldest
    elseif found.empties and head.known then
      head.first, head.oldest = head.last + 1, 0
    end
  end
  if head.known then
    head.bytes = math.max(head.bytes - found.bytes, 0)
    head.count = math.max(head.count - messages, 0)
  end
  local changes = found.trim > 0 or #found.sets > 0
  if changes and head.known then
    must(call, 'HSET', call.head_key, 'state', '')
  end
  must_close(call, found)
  must_write_books(call, oldest)
  must_count(call, found.live)

  for _, one in ipairs(found.sets) do
    redis.call('LSET', key, decimal(one.index), one.entry)
  end
  if found.trim > 0 then
    redis.call('LTRIM', key, decimal(found.trim), '-1')
  end
  if changes and head.known then
    redis.call('HSET', call.head_key, 'state', state_of(head))
  end
  close_writers(call, found)
  local empties = found.empties and 1 or 0
  write_books(call, found.bytes + empties * CONVERSATION_OVERHEAD, messages, empties)
  write_count(call, part == 'l' and 'messages' or 'summaries', found.live)
  return expiry_reply(call, found, true)
end

-- How many entries at the head of a context's log have passed the cut-off.
local function outdated_changes(call, cutoff)
  local trim, start, size = 0, 0, 0
  while start < MAX_LOOK and size <= MAX_LOOK_BYTES do
    local final = decimal(start + CHUNK - 1)
    local entries = reading('changes', 'LRANGE', call.changes, decimal(start), final)
    for place, entry in ipairs(entries) do
      local sequence, time = peek(entry)
      size = size + #entry
      if sequence and time >= cutoff then
        return trim
      elseif sequence then
        trim = start + place
      end
    end
    if #entries < CHUNK then
      break
    end
    start = start + CHUNK
  end
  return trim
end

-- What of a context has passed the cut-off, from behind the value of that name on.
local function outdated_values(call, after, cutoff)
  local found = {
    values = {}, versions = {}, sets = {}, live = 0, bytes = 0, redated = 0, undated = 0, kept = 0,
    oldest = nil, next = '', ends = false, log = 0, member = nil,
  }
  if reading('values', 'HLEN', call.values) > 2 * MAX_FIELDS or call.size > 2 * MAX_FIELDS then
    refuse('MT_DAMAGED')
  end
  local names = reading('values', 'HKEYS', call.values)
  table.sort(names)
  local standing, size = {}, 0
  for place, name in ipairs(names) do
    standing[name] = true
    if (name > after or name == after and name == '') and found.next == '' then
      -- A name that no call could go on behind is not memtenant's, and its value is not read.
      local entry = #name <= MAX_FIELD_NAME and reading('values', 'HGET', call.values, name) or ''
      local version, time, tokens, kind = peek(entry)
      size = size + #entry
      if not version then
        found.undated, found.kept = found.undated + 1, found.kept + 1
      elseif time < cutoff then
        found.values[#found.values + 1] = name
        found.bytes, found.live = found.bytes + #entry, found.live + 1
        standing[name] = nil
      else
        if time > call.now + CLOCK_AHEAD then
          time = call.now
          found.sets[#found.sets + 1] = name
          found.sets[#found.sets + 1] =
            pack(HEADER_FORMAT, kind, version, time, tokens) .. sub(entry, HEADER + 1)
          found.redated = found.redated + 1
        end
        found.kept = found.kept + 1
        found.oldest = math.min(found.oldest or time, time)
      end
      if #name <= MAX_FIELD_NAME and size > MAX_LOOK_BYTES and place < #names then
        found.next = name
      end
    end
  end
  if found.next == '' then
    -- Also of values that were deleted: their versions alone are left.
    local versions, left = reading('versions', 'HGETALL', call.versions), false
    for place = 1, #versions, 2 do
      local name, _, time = versions[place], peek(versions[place + 1])
      if name ~= REVISION and not standing[name] and time and time < cutoff then
        found.versions[#found.versions + 1] = name
        found.bytes = found.bytes + FIELD_OVERHEAD
      elseif name ~= REVISION then
        left = true
        found.member = math.min(found.member or call.now, time or call.now)
      end
    end
    if not left and not next(standing) then
      found.member, found.ends = false, #found.values > 0 or #found.versions > 0
    end
    found.log = outdated_changes(call, cutoff)
  end
  return found
end

local function load_expiring_context(keys, args, fixed)
  exactly(keys, 7, 'MT_KEYS')
  exactly(args, fixed, 'MT_ARGUMENTS')
  local call = context_names(keys, true)
  local after = text(args, 1, 0, MAX_FIELD_NAME)
  call.cutoff = expiry_of(call, fixed == 2 and optional_integer(args, 2, 1e15) or nil, 0)
  load_context(call)
  return call, outdated_values(call, after, call.cutoff)
end

-- reply ok next ('': at the end) live entries bytes ends redated undated kept oldest now 0 0
local function context_expiry_reply(call, found)
  return {'ok', found.next, found.live, #found.values + #found.versions, found.bytes,
    found.ends and 1 or 0, found.redated, found.undated, found.kept, found.oldest or 0, call.now, 0,
    0}
end

-- KEYS  values versions changes limits usage conversations queue
-- ARGV  after ('': from the first value) cutoff ('': of o:limits)
local function context_expiring(keys, args)
  return context_expiry_reply(load_expiring_context(keys, args, 2))
end

local function hdel(key, names)
  for first = 1, #names, HDEL_AT_ONCE do
    redis.call('HDEL', key, unpack(names, first, math.min(first + HDEL_AT_ONCE - 1, #names)))
  end
end

-- ARGV  after. The revision stays, as after a deletion: no version ever comes back.
local function context_expire(keys, args)
  local call, found = load_expiring_context(keys, args, 1)
  load_books(call)
  if call.cutoff == 0 then
    return {'ok', '', 0, 0, 0, 0, 0, 0, 0, 0, call.now, 0, 0}
  end
  if #found.values > 0 then
    must(call, 'HDEL', call.values, '')
  end
  if #found.values > 0 or #found.versions > 0 then
    must(call, 'HDEL', call.versions, '')
  end
  if #found.sets > 0 then
    must(call, 'HSET', call.values, '', '')
  end
  if found.log > 0 then
    must(call, 'LTRIM', call.changes, '0', '0')
  end
  if found.ends then
    must(call, 'UNLINK', call.changes)
  end
  must_write_books(call, found.member)
  must_count(call, found.live)

  hdel(call.values, found.values)
  hdel(call.versions, found.values)
  hdel(call.versions, found.versions)
  for place = 1, #found.sets, 2 do
    redis.call('HSET', call.values, found.sets[place], found.sets[place + 1])
  end
  if found.ends then
    redis.call('UNLINK', call.changes)
  elseif found.log > 0 then
    redis.call('LTRIM', call.changes, decimal(found.log), '-1')
  end
  write_books(call, found.bytes, 0, 0)
  write_count(call, 'values', found.live)
  return context_expiry_reply(call, found)
end

-- KEYS  o:passes
-- ARGV  the passes. Works on a full server, which refuses a SET. Of a tenant that was purged while
--       the pass went on nothing is written: nobody would take it away.
-- reply ok
local function passed(keys, args)
  exactly(keys, 1, 'MT_KEYS')
  exactly(args, 1, 'MT_ARGUMENTS')
  local prefix = named(keys, '^(mt:{[%w.-]+}:)o:passes$')
  local passes = text(args, 1, RUN_BYTES, MAX_PASSES)
  if #passes % RUN_BYTES ~= 0 then
    refuse('MT_ARGUMENT 1')
  end
  if not redis.acl_check_cmd('SET', keys[1], passes) then
    refuse('MT_DENIED passes')
  end
  if redis.call('EXISTS', prefix .. 'o:limits') == 1 then
    redis.call('SET', keys[1], passes)
  end
  return {'ok'}
end

offer('expire', expire, {'allow-oom'})
offer('expiring', expiring, {'no-writes'})
offer('context_expire', context_expire, {'allow-oom'})
offer('context_expiring', context_expiring, {'no-writes'})
-- The operator's alone: no agent reaches its key.
offer('passed', passed, {'allow-oom'})

end
