#!lua name=memtenant_1

-- Values as they come in and go out. Everything that a caller hands over is a string that has to be
-- proven to be what it should be: a nil handed on to the server has crashed servers.
--
-- Nothing is global here; the files of the library are joined in the order of library.py.

-- While a library is loaded, Lua's own libraries are out of reach: they are fetched at first use.
local find, floor, format, match, sub, pack, unpack_bytes

local function prepare()
  if not find then
    floor, find, format = math.floor, string.find, string.format
    match, sub = string.match, string.sub
    pack, unpack_bytes = struct.pack, struct.unpack
  end
end

local MAX_RECORD = 262144          -- bytes of one record; above: store a reference
local MAX_BATCH = 1000             -- records of one append, entries of one reply
local MAX_BATCH_BYTES = 8388608    -- bytes of all records of one append
local MAX_REPLY_BYTES = 8388608    -- bytes of the entries of one reply
local MAX_META = 4096              -- bytes of a conversation's encrypted title
local MAX_EVENT = 4096             -- bytes of an audit event
local HEADER = 15
local TAGGED_HEADER = 23
local HEADER_FORMAT = '>BI5I6I3'
local PLAIN, TAGGED, TOMBSTONE = 0x10, 0x11, 0x12

-- Ends the call. The register turns it into an error reply; nothing was written when it is raised.
local function refuse(text)
  error({refusal = text})
end

-- A decimal number between low and high, or a refusal that names the argument by its place only.
-- Never tonumber alone: it takes 'nan', 'inf' and '0x10'.
local function integer(args, place, low, high)
  local text = args[place]
  if type(text) == 'string' and #text <= 15 and match(text, '^%d+$') then
    local value = tonumber(text)
    if value >= low and value <= high then
      return value
    end
  end
  refuse('MT_ARGUMENT ' .. place)
end

-- As integer, but '' is nil.
local function optional_integer(args, place, high)
  if args[place] ~= '' then
    return integer(args, place, 0, high)
  end
end

-- A string of that many bytes.
local function text(args, place, shortest, longest)
  local value = args[place]
  if type(value) ~= 'string' or #value < shortest or #value > longest then
    refuse('MT_ARGUMENT ' .. place)
  end
  return value
end

-- '' or a string of exactly that many bytes.
local function optional_text(args, place, size)
  local value = text(args, place, 0, size)
  if #value ~= 0 and #value ~= size then
    refuse('MT_ARGUMENT ' .. place)
  end
  return value
end

-- A stored counter; whatever else stands there counts as absent (an agent may have written it).
local function stored(value)
  if value and #value <= 15 and match(value, '^%d+$') then
    return tonumber(value)
  end
end

-- A number as text: tostring would write 1.7e+12.
local function decimal(value)
  return format('%d', value)
end

local function header(sequence, time, tokens, tag)
  if tag ~= '' then
    return pack(HEADER_FORMAT, TAGGED, sequence, time, tokens) .. tag
  end
  return pack(HEADER_FORMAT, PLAIN, sequence, time, tokens)
end

local function tombstone(sequence, time)
  return pack(HEADER_FORMAT, TOMBSTONE, sequence, time, 0)
end

-- sequence, time, tokens, kind of an entry; nil where something else stands in its place.
local function peek(entry)
  if type(entry) ~= 'string' or #entry < HEADER then
    return nil
  end
  local kind, sequence, time, tokens = unpack_bytes(HEADER_FORMAT, entry)
  if kind ~= PLAIN and kind ~= TAGGED and kind ~= TOMBSTONE and kind ~= TOMBSTONE + 1 then
    return nil
  end
  return sequence, time, tokens, kind
end

local function is_tombstone(kind)
  return kind == TOMBSTONE or kind == TOMBSTONE + 1
end

local function now_in_ms()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + floor(tonumber(time[2]) / 1000)
end

-- The names of keys. Every key is declared by the caller and must be the one that its place calls
-- for, of the same tenant: a call cannot turn an operator's key, or another conversation's, into
-- what it writes. (The server's ACL keeps tenants apart; this keeps one tenant's keys in order.)

local CONVERSATION = '^(mt:{[%w.-]+}:)r:([^:]+:[^:]+):l$'
local CONTEXT = '^(mt:{[%w.-]+}:)r:(c:[^:]+)$'
local SUBJECT = '^[%w_-]+$'

local function same(keys, place, name)
  if keys[place] ~= name then
    refuse('MT_KEY ' .. place)
  end
  return name
end

local function named(keys, pattern)
  local first = keys[1]
  local prefix, where
  if type(first) == 'string' then
    prefix, where = match(first, pattern)
  end
  if not prefix then
    refuse('MT_KEY 1')
  end
  return prefix, where
end

-- k:<alias>; the alias is the caller's, the rest is not.
local function subject_of(keys, place, prefix, kind)
  local key = keys[place]
  local start = prefix .. kind
  if type(key) ~= 'string' or sub(key, 1, #start) ~= start
    or not match(sub(key, #start + 1), SUBJECT) then
    refuse('MT_KEY ' .. place)
  end
  return sub(key, #start + 1)
end

-- The keys that every call on a conversation has: 1 list, 2 head, 3 limits; and, where it writes
-- or is audited, 4 usage, 5 conversations, 6 audit queue.
local function conversation_names(keys, writes)
  local prefix, where = named(keys, CONVERSATION)
  if sub(where, 1, 2) == 'c:' then
    refuse('MT_KEY 1')
  end
  local base = sub(keys[1], 1, -2)
  -- Every field that a write will set: a table that grows costs more than all its values.
  local call = {
    prefix = prefix, where = where, list = keys[1],
    head_key = same(keys, 2, base .. 'h'),
    limits_key = same(keys, 3, prefix .. 'o:limits'),
    usage_key = nil, members_key = nil, queue = nil, now = 0, memory_limit = nil,
    conversations_limit = nil, rate_limit = nil, least_kek = 0, cutoff = 0, audited = false,
    event = nil, length = 0, head = nil, agent = nil, used = 0, messages = 0, conversations = 0,
    second = 0, writes = 0, by_agent = 0,
  }
  if writes then
    call.usage_key = same(keys, 4, prefix .. 'u')
    call.members_key = same(keys, 5, prefix .. 'x')
    call.queue = same(keys, 6, prefix .. 'q')
  end
  return call
end

-- 1 values, 2 versions, 3 changes, 4 limits; and 5 usage, 6 conversations, 7 audit queue.
local function context_names(keys, writes)
  local prefix, where = named(keys, CONTEXT)
  local call = {
    prefix = prefix, where = where, values = keys[1],
    versions = same(keys, 2, keys[1] .. ':v'),
    changes = same(keys, 3, keys[1] .. ':log'),
    limits_key = same(keys, 4, prefix .. 'o:limits'),
  }
  if writes then
    call.usage_key = same(keys, 5, prefix .. 'u')
    call.members_key = same(keys, 6, prefix .. 'x')
    call.queue = same(keys, 7, prefix .. 'q')
  end
  return call
end

local function exactly(list, count, code)
  if #list ~= count then
    refuse(code .. ' ' .. count)
  end
end

local function at_least(list, count, code)
  if #list < count then
    refuse(code .. ' ' .. count)
  end
end

-- What the tenant may do now: the operator's o:limits, the server's ACL, the counters in u; and
-- whether what is done must be written to the audit queue.

local ENTRY_OVERHEAD = 14          -- bytes of a list entry beyond its own (measured: 12 to 14)
local CONVERSATION_OVERHEAD = 512  -- list, head, member of x, entry of i
local AUDIT_PATIENCE = 60000       -- ms after the sealer's last heartbeat
local RATE_FORMAT = '>I6I5'        -- a second, and the writes in it
local RATE_BYTES = 11
local AGENT_FORMAT = '>I6I6'       -- an agent's writes, and when it wrote last
local AGENT_BYTES = 12

-- A read whose failure is a refusal. Reading is also the check of the key's type.
local function reading(what, ...)
  local reply = redis.pcall(...)
  if type(reply) == 'table' and reply.err then
    if find(reply.err, 'WRONGTYPE', 1, true) then
      refuse('MT_TYPE ' .. what)
    end
    refuse('MT_DENIED ' .. what)
  end
  return reply
end

-- A limit: a number, or nil for none. Anything else than a number is no licence.
local function limit(value)
  if not value then
    return nil
  end
  return stored(value) or refuse('MT_UNPROVISIONED')
end

local function load_limits(call)
  local fields = reading('limits', 'HMGET', call.limits_key, 'format', 'memory', 'conversations',
    'writes_per_second', 'least_kek', 'cutoff_content', 'audit')
  -- Without the operator's word nothing is known of what is allowed.
  if not fields[1] then
    refuse('MT_UNPROVISIONED')
  end
  if fields[1] ~= '1' then
    refuse('MT_FORMAT')
  end
  call.now = now_in_ms()
  call.memory_limit = limit(fields[2])
  call.conversations_limit = limit(fields[3])
  call.rate_limit = limit(fields[4])
  call.least_kek = limit(fields[5]) or 0
  call.cutoff = limit(fields[6]) or 0
  call.audited = fields[7] == '1'
end

-- Why the server's rules do not let the caller write: told by what they do let it do.
local function explain_denial(call, key)
  local held = reading('limits', 'HGET', call.limits_key, 'held') == '1'
  if not redis.acl_check_cmd('HSET', call.usage_key, 'bytes', '0') then
    refuse('MT_READONLY')
  elseif held then
    refuse('MT_HELD')
  elseif redis.acl_check_cmd('UNLINK', key) then
    refuse(format('MT_QUOTA measured %s %s 0',
      decimal(call.used or 0), decimal(call.memory_limit or 0)))
  end
  refuse('MT_DENIED write')
end

-- Asks the server about a write that will follow. Lua does not roll back, so every write is asked
-- about before the first.
local function must(call, command, key, ...)
  if not redis.acl_check_cmd(command, key, ...) then
    explain_denial(call, call.list or call.values)
  end
end

-- The call whose refusal is to be audited, while one runs.
local pending

-- Decides whether the call will leave an event. From here on refusals leave one too.
local function open_audit(call, event)
  if not call.audited then
    return
  end
  local fields = reading('limits', 'HMGET', call.limits_key, 'audit_heartbeat', 'on_failure')
  if call.now - (stored(fields[1]) or 0) > AUDIT_PATIENCE then
    if fields[2] ~= 'Open' then
      refuse('MT_AUDIT_STALE')
    end
    call.dropped = true
    return
  end
  if event == '' then
    refuse('MT_AUDIT_EVENT')
  end
  if not redis.acl_check_cmd('RPUSH', call.queue, event) then
    refuse('MT_DENIED queue')
  end
  call.event, pending = event, call
end

-- The caller's event, then what became of it: outcome, time, sequence.
local function write_event(call, outcome, sequence)
  if call.event then
    redis.call('RPUSH', call.queue, call.event .. pack('>c1I6I5', outcome, call.now, sequence))
    call.event = nil
  end
end

-- Two numbers in a field of 11 or 12 bytes; 0 and 0 for anything else.
local function stored_pair(layout, size, value)
  if value and #value == size then
    return unpack_bytes(layout, value)
  end
  return 0, 0
end

local function load_usage(call, agent)
  call.agent = 'a:' .. agent
  local fields = reading('usage', 'HMGET', call.usage_key,
    'bytes', 'messages', 'conversations', 'rate', call.agent)
  call.used = stored(fields[1]) or 0
  call.messages = stored(fields[2]) or 0
  call.conversations = stored(fields[3]) or 0
  call.second, call.writes = stored_pair(RATE_FORMAT, RATE_BYTES, fields[4])
  call.by_agent = stored_pair(AGENT_FORMAT, AGENT_BYTES, fields[5])
end

-- The share of the rate, the memory and the conversations that the write would take. Memory by
-- these counters is exact for those who write through here; measurement enforces it for all.
local function check_quota(call, bytes, writes, conversations)
  local second = floor(call.now / 1000)
  if second ~= call.second then
    call.second, call.writes = second, 0
  end
  -- A batch larger than a second's share goes through in a second of its own.
  if call.rate_limit and call.writes > 0 and call.writes + writes > call.rate_limit then
    refuse(format('MT_QUOTA writes_per_second %s %s %s', decimal(call.writes),
      decimal(call.rate_limit), decimal(1000 - call.now % 1000)))
  end
  if call.memory_limit and call.used + bytes > call.memory_limit then
    refuse(format('MT_QUOTA memory %s %s 0', decimal(call.used), decimal(call.memory_limit)))
  end
  if conversations > 0 and call.conversations_limit
    and call.conversations >= call.conversations_limit then
    refuse(format('MT_QUOTA conversations %s %s 0', decimal(call.conversations),
      decimal(call.conversations_limit)))
  end
  call.writes = call.writes + writes
end

-- One HSET: what the call changed, and that this agent did it.
local function write_usage(call, bytes, messages, conversations, by_agent)
  call.used = math.max(call.used + bytes, 0)
  call.messages = math.max(call.messages + messages, 0)
  local changes = {
    'bytes', decimal(call.used), 'messages', decimal(call.messages),
    'rate', pack(RATE_FORMAT, call.second, call.writes),
    call.agent, pack(AGENT_FORMAT, call.by_agent + by_agent, call.now),
  }
  if conversations ~= 0 then
    call.conversations = math.max(call.conversations + conversations, 0)
    changes[9], changes[10] = 'conversations', decimal(call.conversations)
  end
  redis.call('HSET', call.usage_key, unpack(changes))
  if call.dropped then
    redis.pcall('HINCRBY', call.usage_key, 'dropped', '1')
  end
end

-- Thousandths of a limit in use; 0 without one.
local function share(used, allowed)
  if not allowed then
    return 0
  elseif allowed == 0 then
    return 1000
  end
  return floor(used * 1000 / allowed)
end

-- Where one data key serves the whole tenant (Minimal), a subject's tombstone stands apart from it.
-- The key is not declared: it is in the same slot, and one more would cost every call.
local function check_subject(call, data_key, subject)
  local own = call.prefix .. 'k:' .. subject
  if own ~= data_key and reading('key', 'HGET', own, 'erased') then
    refuse('MT_ERASED')
  end
end

-- The data key that the writer sealed with must be the one that the store holds: not an older
-- wrap than the operator allows, nor one whose subject is being erased (the tombstone comes first,
-- the key goes when nothing under it is left). A new key is made here only
-- where the caller says that it made it; a stale cache cannot bring a subject back.
local function check_data_key(call, key, given, fresh)
  local version = unpack_bytes('>I4', given)
  if version < call.least_kek then
    refuse('MT_KEK ' .. decimal(call.least_kek))
  end
  local dek = reading('key', 'HGET', key, 'dek')
  if reading('key', 'HGET', key, 'erased') then
    refuse('MT_ERASED')
  elseif dek == given then
    return false
  elseif dek then
    refuse('MT_KEY_CHANGED')
  elseif not fresh then
    refuse('MT_KEY_ABSENT')
  end
  must(call, 'HSETNX', key, 'dek', given)
  return true
end

-- The head of a conversation: its hash `:h`. It may hold anything, since agents may write it; what
-- cannot be read counts as absent, and the list itself tells what was lost.

local WRITER_FORMAT = '>c8I4I2I5I6'  -- id, last counter, size and last sequence of its batch, time
local WRITER_BYTES = 25
local MAX_WRITERS = 512
local WRITER_IDLE = 600000           -- ms
local CLOCK_AHEAD = 60000            -- ms that a client's clock may be ahead
local MARK_BYTES = 16                -- of an idempotency mark, and of the MAC beside it
local MARK_FORMAT = '>c16c16I5I6'
local MARK_ENTRY = 43
local MARKS_A_PAGE = 16
local MARK_PAGES = 9                 -- the page being filled and 8 full ones: the last 128
local LEAVE_TIME = 900000            -- ms that a deleted conversation's head stays, for retries

-- epoch first last bytes count oldest evicted gone marks covered, 46 bytes in one field: that is
-- cheaper than ten fields by a third of an append.
local STATE_FORMAT = '>I6I5I5I6I4I6I4BI4I5'
local STATE_BYTES = 46

local function load_head(call)
  local fields = reading('head', 'HMGET', call.head_key, 'state', 'writers')
  call.length = reading('list', 'LLEN', call.list)
  local state = fields[1]
  -- An epoch begins as the time, so that one after a deletion is never an old one again.
  local head = {
    writers = fields[2] or '', known = false, epoch = call.now, first = nil, last = nil, bytes = 0,
    count = 0, oldest = 0, evicted = 0, gone = 0, marks = 0, covered = 0,
  }
  if state and #state == STATE_BYTES then
    head.known = true
    head.epoch, head.first, head.last, head.bytes, head.count, head.oldest, head.evicted,
      head.gone, head.marks, head.covered = unpack_bytes(STATE_FORMAT, state)
  end
  if #head.writers % WRITER_BYTES ~= 0 then
    head.writers = ''
  end
  if call.length > 0 and not head.last then
    head.last = peek(reading('list', 'LINDEX', call.list, '-1')) or refuse('MT_DAMAGED')
    head.first = peek(reading('list', 'LINDEX', call.list, '0')) or head.last
    head.count = call.length
  end
  head.last = head.last or 0
  head.first = head.first or head.last + 1
  call.head = head
  return head
end

local function state_of(head)
  return pack(STATE_FORMAT, head.epoch, head.first, head.last, head.bytes, head.count, head.oldest,
    head.evicted, head.gone, head.marks, head.covered)
end

-- Where a fixed-size entry begins that starts with the key, or nil.
local function slot(blob, key, size)
  local at = find(blob, key, 1, true)
  while at do
    if (at - 1) % size == 0 then
      return at
    end
    at = find(blob, key, at + 1, true)
  end
end

-- Whether the lane's next write is this one. Answers nothing for a new write; for one that was
-- stored already the first and last sequence (0, 0 where that is forgotten) and the time.
local function known_write(call, writer, counter, size)
  local head = call.head
  local at = slot(head.writers, writer, WRITER_BYTES)
  if not at then
    local opened = unpack_bytes('>I4', writer) * 1000
    if opened < call.now - WRITER_IDLE or opened > call.now + CLOCK_AHEAD
      or opened <= head.evicted * 1000 then
      refuse('MT_WRITER ' .. decimal(call.now))
    elseif counter ~= 1 then
      refuse('MT_COUNTER 0')
    end
    return nil
  end
  local _, last, batch, sequence, time = unpack_bytes(WRITER_FORMAT, head.writers, at)
  if counter == last + 1 then
    return nil
  end
  local final = counter + size - 1
  if final > last then
    refuse('MT_COUNTER ' .. decimal(last))
  elseif counter > last - batch then
    local behind = last - final
    return sequence - behind - size + 1, sequence - behind, time
  end
  return 0, 0, 0
end

-- The writers after this write: its own at the end, the idle gone from the front.
local function writers_after(call, writer, counter, size, sequence)
  local head = call.head
  local blob = head.writers
  local at = slot(blob, writer, WRITER_BYTES)
  if at then
    blob = sub(blob, 1, at - 1) .. sub(blob, at + WRITER_BYTES)
  end
  local keep, idle = 1, call.now - WRITER_IDLE
  while keep < #blob do
    local id, _, _, _, time = unpack_bytes(WRITER_FORMAT, blob, keep)
    if time >= idle then
      if #blob - keep + 1 < MAX_WRITERS * WRITER_BYTES then
        break
      end
      -- Sent away before its time: whoever opened until then is not known any more.
      head.evicted = math.max(head.evicted, (unpack_bytes('>I4', id)))
    end
    keep = keep + WRITER_BYTES
  end
  return sub(blob, keep)
    .. pack(WRITER_FORMAT, writer, counter + size - 1, size, sequence, call.now)
end

local MARK_FIELDS = {}
for page = 0, MARK_PAGES - 1 do
  MARK_FIELDS[page + 1] = 'm' .. page
end

local function load_marks(call)
  if not call.mark_pages then
    call.mark_pages = reading('head', 'HMGET', call.head_key, unpack(MARK_FIELDS))
  end
  return call.mark_pages
end

-- The MAC, sequence and time that stand beside a mark, or nil.
local function marked(call, mark)
  for _, blob in ipairs(load_marks(call)) do
    local at = blob and slot(blob, mark, MARK_ENTRY)
    if at and #blob >= at + MARK_ENTRY - 1 then
      local _, mac, sequence, time = unpack_bytes(MARK_FORMAT, blob, at)
      return mac, sequence, time
    end
  end
end

-- Adds HSET arguments that keep one more mark (a page of 16 is written, not all 128), and counts it
-- in the head.
local function add_mark(call, changes, mark, mac, sequence)
  local pages, head = load_marks(call), call.head
  local page = floor(head.marks / MARKS_A_PAGE) % MARK_PAGES + 1
  local blob = pages[page] or ''
  if head.marks % MARKS_A_PAGE == 0 then
    blob = ''
  end
  pages[page] = blob .. pack(MARK_FORMAT, mark, mac, sequence, call.now)
  head.marks = head.marks + 1
  changes[#changes + 1], changes[#changes + 2] = MARK_FIELDS[page], pages[page]
end

-- Index (from 0) of the first entry whose sequence is not below, and whether it has just this one.
-- Sequences follow one another unless entries were popped from the end over quota, or written
-- around the Functions: then the guess fails and a binary search answers.
local function locate(call, sequence)
  local head, length = call.head, call.length
  if length == 0 or sequence > head.last then
    return length, false
  end
  local guess = length - (head.last - sequence) - 1
  if guess >= 0 and guess < length
    and peek(reading('list', 'LINDEX', call.list, decimal(guess))) == sequence then
    return guess, true
  end
  local low, high = 0, length
  while low < high do
    local middle = floor((low + high) / 2)
    local found = peek(reading('list', 'LINDEX', call.list, decimal(middle)))
      or refuse('MT_DAMAGED')
    if found < sequence then
      low = middle + 1
    else
      high = middle
    end
  end
  local exact = low < length
    and peek(reading('list', 'LINDEX', call.list, decimal(low))) == sequence
  return low, exact
end

-- mt1_append: one record, or a batch of one writer, at the end of a conversation.
--
-- KEYS  list head limits usage conversations queue data-key subject-index
-- ARGV  writer counter expected-epoch expected-last tag data-key flags meta agent event,
--       then for each record: tokens mark record
-- flags n: the data key is new; i: write the index entry also where the conversation exists

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

-- mt1_read, mt1_delta, mt1_tail: what is there and has not expired. Tombstones are part of the
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

local function reversed(list)
  local result, count = {}, #list
  for index = 1, count do
    result[index] = list[count - index + 1]
  end
  return result
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

-- What a graph keeps of a thread: mt1_checkpoint_put, mt1_checkpoint_writes,
-- mt1_checkpoint_delete, mt1_checkpoint_get, mt1_checkpoint_list. One hash, `:g`; the first byte
-- of a field's name says what it is:
--
--   c <where>           a checkpoint: header, number of references (2), references, record
--   e <id>              a value, or one element of a list: header, record
--   n <id>              a list: base (an id, or zeros), with how many of the base's elements it
--                       begins (3), ids of the others
--   d <where>           the places of the writes beside a checkpoint
--   w <where> <place>   one of these writes: header, record
--
-- where: the namespace's alias (8) and the checkpoint's name; names are ordered as text. An id (16)
-- is a keyed MAC over what it names, so that what is equal is kept once. A reference is 'e' or 'n'
-- and an id. Whatever a checkpoint that is there refers to is there, or a tombstone: expired.
--
-- KEYS  list head limits usage conversations queue checkpoints; put and writes: data-key index
--       of get and list: list head limits checkpoints; audited: as for a write

local SAVED_OVERHEAD = 64           -- bytes of a field of the hash beyond its own

local checkpoint_put, checkpoint_writes, checkpoint_delete, checkpoint_get, checkpoint_list
local outdated_checkpoints, expire_checkpoints   -- for expiry.lua

-- Bytes that the hash counts for, and its number of fields.
local function saved_size(key)
  local names, bytes = reading('checkpoints', 'HKEYS', key), 0
  for _, name in ipairs(names) do
    bytes = bytes + #name + SAVED_OVERHEAD + reading('checkpoints', 'HSTRLEN', key, name)
  end
  return bytes, #names
end

do
  local NAMESPACE = 8
  local ID = 16
  local PLACE = 10
  local REFERENCE = 17
  local MAX_NAME = 64
  local MAX_REFERENCES = 1024
  local MAX_ELEMENTS = 16384         -- new ones of one call, and ids of one list
  local MAX_WRITES = 1000
  local MAX_SAVED = 32768            -- fields of one thread
  local FIXED = 8                    -- arguments that put and writes share
  local NODE_FIXED = ID + 3
  local NONE = '\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0'

  local function where_of(args)
    local namespace = text(args, 1, NAMESPACE, NAMESPACE)
    return namespace .. text(args, 2, 1, MAX_NAME)
  end

  -- In the head: the time of the oldest thing kept (6), and where the newest of the root is.
  local function load_saved(call)
    call.fields = reading('checkpoints', 'HLEN', call.saved)
    call.oldest, call.latest = 0, ''
    local state = reading('head', 'HGET', call.head_key, 'saved')
    if call.fields == 0 then
      call.oldest = call.now
    elseif state and #state >= 6 then
      call.oldest, call.latest = unpack_bytes('>I6', state), sub(state, 7)
    end
  end

  -- Time and references of a checkpoint.
  local function parse(entry)
    local _, time, _, kind = peek(entry)
    local start = kind == TAGGED and TAGGED_HEADER or HEADER
    if (kind ~= PLAIN and kind ~= TAGGED) or #entry < start + 2 then
      refuse('MT_DAMAGED checkpoints')
    end
    local count = unpack_bytes('>I2', entry, start + 1)
    if #entry < start + 2 + count * REFERENCE then
      refuse('MT_DAMAGED checkpoints')
    end
    local references = {}
    for place = 1, count do
      local from = start + 3 + (place - 1) * REFERENCE
      references[place] = sub(entry, from, from + REFERENCE - 1)
    end
    return time, references
  end

  -- base (nil: none), how much of it, own ids.
  local function node_of(call, id)
    local node = call.fresh and call.fresh['n' .. id]
      or reading('checkpoints', 'HGET', call.saved, 'n' .. id)
    if not node or #node < NODE_FIXED or (#node - NODE_FIXED) % ID ~= 0 then
      refuse('MT_DAMAGED checkpoints')
    end
    return sub(node, 1, ID), unpack_bytes('>I3', node, ID + 1), sub(node, NODE_FIXED + 1)
  end

  -- The parts of a list from its end to its beginning, as {ids, from, node}.
  local function each_part(call, id, visit)
    local wanted, hops, passed = nil, 0, {}
    while id do
      local base, kept, ids = node_of(call, id)
      local total = kept + #ids / ID
      wanted = wanted or total
      -- A list that rests on itself was written around these Functions.
      if wanted > total or total > MAX_ELEMENTS or passed[id] then
        refuse('MT_DAMAGED checkpoints')
      end
      passed[id], hops = true, hops + 1
      if visit(id, wanted, kept, sub(ids, 1, math.max(wanted - kept, 0) * ID)) then
        break
      end
      wanted = math.min(kept, wanted)
      id = wanted > 0 and base or nil
    end
    return hops
  end

  local function expanded(call, id)
    local parts = {}
    local hops = each_part(call, id, function(_, _, _, ids)
      parts[#parts + 1] = ids
    end)
    return table.concat(reversed(parts)), hops
  end

  local function each_id(ids, visit)
    for from = 1, #ids, ID do
      visit(sub(ids, from, from + ID - 1))
    end
  end

  -- What goes when those checkpoints go for which `goes` says so, with all that nothing else refers
  -- to. Where `expires`, what is older than the cut-off goes too: an element that is still referred
  -- to leaves a tombstone.
  local function sweep(call, goes, roots, expires)
    local names = reading('checkpoints', 'HKEYS', call.saved)
    local drops, gone, marked, reached, oldest = {}, {}, {}, {}, call.now
    call.drops, call.dropped_bytes, call.removed, call.tombstones = drops, 0, 0, {}

    local function drop(name)
      drops[#drops + 1] = name
      call.dropped_bytes = call.dropped_bytes + #name + SAVED_OVERHEAD
        + reading('checkpoints', 'HSTRLEN', call.saved, name)
    end
    local function mark(reference)
      marked[reference] = true
      if sub(reference, 1, 1) == 'e' then
        return
      end
      each_part(call, sub(reference, 2), function(id, wanted, kept, ids)
        local before = reached[id]
        if before and before >= wanted then
          return true
        end
        reached[id], marked['n' .. id] = wanted, true
        each_id(ids, function(element)
          marked['e' .. element] = true
        end)
      end)
    end
    local function age(time)
      oldest = math.min(oldest, time)
    end

    for _, reference in ipairs(roots) do
      mark(reference)
    end
    for _, name in ipairs(names) do
      if sub(name, 1, 1) == 'c' then
        local where = sub(name, 2)
        local time, references = parse(reading('checkpoints', 'HGET', call.saved, name))
        if goes(where, time) then
          drop(name)
          gone[where], call.removed = true, call.removed + 1
        else
          age(time)
          for _, reference in ipairs(references) do
            mark(reference)
          end
        end
      end
    end
    for _, name in ipairs(names) do
      local kind = sub(name, 1, 1)
      if kind == 'd' then
        if gone[sub(name, 2)] then
          drop(name)
        end
      elseif kind == 'w' then
        local entry = expires and reading('checkpoints', 'HGET', call.saved, name)
        local _, time = peek(entry)
        if gone[sub(name, 2, -PLACE - 1)] or (time and time < call.cutoff) then
          drop(name)
        elseif time then
          age(time)
        end
      elseif kind ~= 'c' and not marked[name] then
        drop(name)
      elseif kind == 'e' and expires and not call.fresh[name] then
        local entry = reading('checkpoints', 'HGET', call.saved, name)
        local _, time, _, state = peek(entry)
        if time and not is_tombstone(state) then
          if time < call.cutoff then
            call.tombstones[#call.tombstones + 1] = name
            call.tombstones[#call.tombstones + 1] = tombstone(0, time)
            call.dropped_bytes = call.dropped_bytes + #entry - HEADER
          else
            age(time)
          end
        end
      end
    end
    if gone[call.latest] then
      call.latest = ''
    end
    if expires then
      call.oldest = oldest
    end
  end

  local function in_parts(command, key, list)
    for from = 1, #list, 1000 do
      redis.call(command, key, unpack(list, from, math.min(from + 999, #list)))
    end
  end

  local function write_saved(call)
    redis.call('HSET', call.head_key, 'saved', pack('>I6', call.oldest) .. call.latest)
  end

  -- What has expired of it at call.cutoff, in call.drops and call.tombstones; call.oldest is the
  -- time of what stays.
  function outdated_checkpoints(call)
    call.saved, call.fresh = call.checkpoints, {}
    call.drops, call.tombstones, call.dropped_bytes = {}, {}, 0
    load_saved(call)
    if call.fields > 0 then
      sweep(call, function(_, time)
        return time < call.cutoff
      end, {}, true)
    end
  end

  -- Removes it; the caller has asked the server about every write.
  function expire_checkpoints(call)
    if #call.drops == call.fields then
      redis.call('UNLINK', call.saved)
      redis.call('HDEL', call.head_key, 'saved')
      return
    end
    in_parts('HDEL', call.saved, call.drops)
    in_parts('HSET', call.saved, call.tombstones)
    write_saved(call)
  end

  -- ARGV 1 to 8 of put and writes: namespace checkpoint time tag data-key flags agent event.
  -- time: '' is now, or when what is copied was stored. flags n: the data key is new; i: write the
  -- index entry though the thread exists; r: the root namespace.
  local function open_saving(keys, args, least)
    exactly(keys, 9, 'MT_KEYS')
    at_least(args, least, 'MT_ARGUMENTS')
    local call = conversation_names(keys, true)
    call.saved = same(keys, 7, sub(call.list, 1, -2) .. 'g')
    subject_of(keys, 8, call.prefix, 'k:')
    call.subject = subject_of(keys, 9, call.prefix, 'i:')
    call.place = where_of(args)
    local time = optional_integer(args, 3, 1e15)
    call.tag = optional_text(args, 4, 8)
    call.dek = text(args, 5, 44, 44)
    local flags = text(args, 6, 0, 3)
    local agent = text(args, 7, 1, 40)
    local event = text(args, 8, 0, MAX_EVENT)
    load_limits(call)
    open_audit(call, event)
    call.time = math.min(time or call.now, call.now)
    load_saved(call)
    call.new_key = find(flags, 'n', 1, true) ~= nil
    call.root = find(flags, 'r', 1, true) ~= nil
    call.indexed = call.fields == 0 or find(flags, 'i', 1, true) ~= nil
    call.sets, call.fresh, call.bytes, call.added, call.sent = {}, {}, 0, 0, 0
    load_usage(call, agent)
    return call
  end

  -- Puts a field on the list of what will be written.
  local function set(call, name, value)
    local length = reading('checkpoints', 'HSTRLEN', call.saved, name)
    if length == 0 then
      call.bytes, call.added = call.bytes + #name + SAVED_OVERHEAD, call.added + 1
    end
    call.bytes = call.bytes + #value - length
    call.sets[#call.sets + 1], call.sets[#call.sets + 2] = name, value
  end

  local function record_of(call, args, place)
    local record = args[place]
    if #record > MAX_RECORD then
      refuse(format('MT_TOO_LARGE %d %d', #record, MAX_RECORD))
    end
    call.sent = call.sent + #record
    if call.sent > MAX_BATCH_BYTES then
      refuse(format('MT_TOO_LARGE %d %d', call.sent, MAX_BATCH_BYTES))
    end
    return text(args, place, 1, MAX_RECORD)
  end

  local function save(call, keys, roots)
    check_subject(call, keys[8], call.subject)
    local fresh_key = check_data_key(call, keys[8], call.dek, call.new_key)
    if call.oldest < call.cutoff and redis.acl_check_cmd('HDEL', call.saved, '') then
      sweep(call, function(_, time)
        return time < call.cutoff
      end, roots, true)
    end
    local drops, tombstones = call.drops or {}, call.tombstones or {}
    local change = call.bytes - (call.dropped_bytes or 0)
    local left = call.fields + call.added - #drops
    if left > MAX_SAVED then
      refuse(format('MT_QUOTA checkpoints %d %d 0', call.fields, MAX_SAVED))
    end
    check_quota(call, change, 1, 0)
    must(call, 'HSET', call.saved, '', '')
    must(call, 'HSET', call.head_key, 'saved', '')
    must(call, 'HSET', call.usage_key, 'bytes', '')
    if call.indexed then
      reading('conversations', 'ZCARD', call.members_key)
      must(call, 'ZADD', call.members_key, 'NX', '0', call.where)
      reading('index', 'LRANGE', keys[9], '0', '0')
      must(call, 'RPUSH', keys[9], call.where)
    end
    call.oldest = math.min(call.oldest, call.time)

    if fresh_key then
      redis.call('HSETNX', keys[8], 'dek', call.dek)
    end
    in_parts('HDEL', call.saved, drops)
    in_parts('HSET', call.saved, tombstones)
    in_parts('HSET', call.saved, call.sets)
    write_saved(call)
    if call.indexed then
      redis.call('ZADD', call.members_key, 'NX', decimal(call.time), call.where)
      redis.call('RPUSH', keys[9], call.where)
    end
    write_usage(call, change, 0, 0, 1)
    write_event(call, 'O', 0)
    return {'ok', call.now, share(call.used, call.memory_limit)}
  end

  -- ARGV  9 parent that the call relies on ('': on none), 10 references, 11 record, 12 number of
  --       lists, then for each list: id base ('': none) how-much-of-it ids; then for each value
  --       that is new: id record
  -- reply ok now memory-share | missed now (what the call relies on is not there any more)
  function checkpoint_put(keys, args)
    local call = open_saving(keys, args, FIXED + 4)
    local parent = text(args, 9, 0, MAX_NAME)
    local references = text(args, 10, 0, MAX_REFERENCES * REFERENCE)
    local record = record_of(call, args, 11)
    local lists = integer(args, 12, 0, MAX_REFERENCES)
    local values = #args - 12 - 4 * lists
    if #references % REFERENCE ~= 0 or values < 0 or values % 2 ~= 0
      or values > 2 * MAX_ELEMENTS then
      refuse('MT_ARGUMENTS 12')
    end
    local whole = true

    local function there(name)
      whole = whole and (call.fresh[name] ~= nil
        or reading('checkpoints', 'HEXISTS', call.saved, name) == 1)
    end
    local function bring(name, value, place)
      if call.fresh[name] then
        refuse('MT_ARGUMENT ' .. place)
      end
      call.fresh[name] = value
    end

    for place = 13 + 4 * lists, #args, 2 do
      local name = 'e' .. text(args, place, ID, ID)
      local entry = header(0, call.time, 0, call.tag) .. record_of(call, args, place + 1)
      bring(name, entry, place)
      set(call, name, entry)
    end
    local roots = {}
    for place = 13, 12 + 4 * lists, 4 do
      local id = text(args, place, ID, ID)
      local base = optional_text(args, place + 1, ID)
      local kept = integer(args, place + 2, 0, MAX_ELEMENTS)
      local ids = text(args, place + 3, 0, MAX_ELEMENTS * ID)
      if #ids % ID ~= 0 or kept + #ids / ID > MAX_ELEMENTS or (base == '') ~= (kept == 0) then
        refuse('MT_ARGUMENT ' .. place)
      end
      each_id(ids, function(element)
        there('e' .. element)
      end)
      local known = reading('checkpoints', 'HEXISTS', call.saved, 'n' .. id) == 1
      if base == '' then
        local node = NONE .. pack('>I3', 0) .. ids
        bring('n' .. id, node, place)
        set(call, 'n' .. id, node)
      elseif not known then
        there('n' .. base)
        local node = base .. pack('>I3', kept) .. ids
        bring('n' .. id, node, place)
        set(call, 'n' .. id, node)
      else
        -- The same list as it was made before. It is not made anew on another base, which may rest
        -- on this very one; if a part of it has gone, the caller has to send it whole.
        each_id(expanded(call, id), function(element)
          there('e' .. element)
        end)
      end
    end
    for from = 1, #references, REFERENCE do
      local reference = sub(references, from, from + REFERENCE - 1)
      if not match(reference, '^[en]') then
        refuse('MT_ARGUMENT 10')
      end
      there(reference)
      roots[#roots + 1] = reference
    end
    if parent ~= '' then
      there('c' .. sub(call.place, 1, NAMESPACE) .. parent)
    end
    if not whole then
      write_event(call, 'C', 0)
      return {'missed', call.now}
    end
    set(call, 'c' .. call.place, header(0, call.time, 0, call.tag)
      .. pack('>I2', #references / REFERENCE) .. references .. record)
    if call.root and sub(call.place, NAMESPACE + 1) > sub(call.latest, NAMESPACE + 1) then
      call.latest = call.place
    end
    return save(call, keys, roots)
  end

  -- ARGV  for each write: place, flag (r: it replaces one that is there), record
  -- reply ok now memory-share
  function checkpoint_writes(keys, args)
    local call = open_saving(keys, args, FIXED + 3)
    local count = (#args - FIXED) / 3
    if count ~= floor(count) or count > MAX_WRITES then
      refuse('MT_ARGUMENTS ' .. FIXED)
    end
    local directory = reading('checkpoints', 'HGET', call.saved, 'd' .. call.place) or ''
    local places = directory
    for place = FIXED + 1, #args, 3 do
      local at = text(args, place, PLACE, PLACE)
      local replaces = text(args, place + 1, 0, 1) == 'r'
      local record = record_of(call, args, place + 2)
      local name = 'w' .. call.place .. at
      if call.fresh[name] then
        refuse('MT_ARGUMENT ' .. place)
      end
      local known = slot(places, at, PLACE) ~= nil
      if replaces or reading('checkpoints', 'HEXISTS', call.saved, name) == 0 then
        call.fresh[name] = header(0, call.time, 0, call.tag) .. record
        set(call, name, call.fresh[name])
      end
      if not known then
        places = places .. at
      end
    end
    if places ~= directory then
      set(call, 'd' .. call.place, places)
    end
    return save(call, keys, {})
  end

  -- ARGV  agent event, then for each checkpoint: namespace name; none: everything
  -- reply ok removed now
  function checkpoint_delete(keys, args)
    exactly(keys, 7, 'MT_KEYS')
    at_least(args, 2, 'MT_ARGUMENTS')
    local call = conversation_names(keys, true)
    call.saved = same(keys, 7, sub(call.list, 1, -2) .. 'g')
    local agent = text(args, 1, 1, 40)
    local event = text(args, 2, 0, MAX_EVENT)
    if #args % 2 ~= 0 or #args > 2 + 2 * MAX_BATCH then
      refuse('MT_ARGUMENTS 2')
    end
    local doomed = {}
    for place = 3, #args, 2 do
      doomed[text(args, place, NAMESPACE, NAMESPACE) .. text(args, place + 1, 1, MAX_NAME)] = true
    end
    load_limits(call)
    open_audit(call, event)
    load_saved(call)
    load_usage(call, agent)
    local everything = #args == 2
    if everything then
      call.dropped_bytes, call.removed = saved_size(call.saved)
      call.drops = {}
    else
      sweep(call, function(where)
        return doomed[where]
      end, {}, false)
    end
    if call.removed == 0 then
      write_event(call, 'O', 0)
      return {'ok', 0, call.now}
    end
    local empties = everything or #call.drops == call.fields
    local leaves = empties and reading('list', 'LLEN', call.list) == 0
    must(call, 'UNLINK', call.saved)
    must(call, 'HDEL', call.saved, '')
    must(call, 'HSET', call.head_key, 'saved', '')
    must(call, 'HSET', call.usage_key, 'bytes', '')
    if leaves then
      reading('conversations', 'ZCARD', call.members_key)
      must(call, 'ZREM', call.members_key, call.where)
    end
    if empties then
      redis.call('UNLINK', call.saved)
      redis.call('HDEL', call.head_key, 'saved')
    else
      in_parts('HDEL', call.saved, call.drops)
      write_saved(call)
    end
    if leaves then
      redis.call('ZREM', call.members_key, call.where)
    end
    write_usage(call, -call.dropped_bytes, 0, 0, 1)
    write_event(call, 'O', 0)
    return {'ok', call.removed, call.now}
  end

  local function open_saved(keys, args, audited, count, exact)
    exactly(keys, audited and 7 or 4, 'MT_KEYS')
    local fixed = audited and count + 2 or count
    at_least(args, fixed, 'MT_ARGUMENTS')
    if exact then
      exactly(args, fixed, 'MT_ARGUMENTS')
    end
    local call = conversation_names(keys, audited)
    call.saved = same(keys, audited and 7 or 4, sub(call.list, 1, -2) .. 'g')
    local agent, event
    if audited then
      agent = text(args, count + 1, 1, 40)
      event = text(args, count + 2, 0, MAX_EVENT)
    end
    open_reading(call, audited, agent, event)
    load_saved(call)
    return call, fixed
  end

  -- An entry that has expired shows as a tombstone.
  local function shown(call, entry)
    local _, time, _, kind = peek(entry)
    if not time then
      refuse('MT_DAMAGED checkpoints')
    end
    return (time < call.cutoff or is_tombstone(kind)) and tombstone(0, time) or entry
  end

  -- The checkpoint, if it has not expired.
  local function alive(call, where)
    local entry = reading('checkpoints', 'HGET', call.saved, 'c' .. where)
    if entry and parse(entry) >= call.cutoff then
      return entry
    end
  end

  -- Where the checkpoints of a namespace ('': of all) are, the newest first.
  local function sorted(call, namespace)
    local found = {}
    for _, name in ipairs(reading('checkpoints', 'HKEYS', call.saved)) do
      if sub(name, 1, 1 + #namespace) == 'c' .. namespace then
        found[#found + 1] = sub(name, 2)
      end
    end
    table.sort(found, function(one, other)
      local first, second = sub(one, NAMESPACE + 1), sub(other, NAMESPACE + 1)
      if first == second then
        return one > other
      end
      return first > second
    end)
    return found
  end

  local function newest(call, namespace)
    if sub(call.latest, 1, NAMESPACE) == namespace then
      local entry = alive(call, call.latest)
      if entry then
        return call.latest, entry
      end
    end
    for _, where in ipairs(sorted(call, namespace)) do
      local entry = alive(call, where)
      if entry then
        return where, entry
      end
    end
  end

  -- ARGV  namespace name ('': the newest) flags bytes (agent event), then ids of values, and places
  --       of writes beside the checkpoint of that name: these only
  -- flags i: no values and no writes
  -- reply ok|empty now name entry {ids of a list, steps to it …} {id value …} {place write …}
  --       {id of a value, or place of a write, that did not fit …}
  function checkpoint_get(keys, args, audited)
    local call, fixed = open_saved(keys, args, audited, 4, false)
    local namespace = text(args, 1, NAMESPACE, NAMESPACE)
    local name = text(args, 2, 0, MAX_NAME)
    local bare = text(args, 3, 0, 1) == 'i'
    local bytes = integer(args, 4, 1, MAX_REPLY_BYTES)
    if #args - fixed > MAX_ELEMENTS then
      refuse('MT_ARGUMENTS ' .. fixed)
    end
    local lists, values, writes, rest, wanted, seen, size = {}, {}, {}, {}, {}, {}, 0
    local places = ''

    local function want(id)
      if not seen[id] then
        seen[id], wanted[#wanted + 1] = true, id
      end
    end

    for place = fixed + 1, #args do
      local asked = text(args, place, PLACE, ID)
      if #asked == PLACE and name ~= '' then
        places = places .. asked
      else
        want(text(args, place, ID, ID))
      end
    end
    local where, entry = namespace .. name, nil
    if #args == fixed then
      if name == '' then
        where, entry = newest(call, namespace)
      else
        where, entry = namespace .. name, alive(call, namespace .. name)
      end
      if not entry then
        finish_reading(call, 0)
        return {'empty', call.now, '', '', {}, {}, {}, {}}
      end
      local _, references = parse(entry)
      for _, reference in ipairs(references) do
        local id = sub(reference, 2)
        if sub(reference, 1, 1) == 'e' then
          want(id)
        else
          local ids, hops = expanded(call, id)
          lists[#lists + 1], lists[#lists + 2] = ids, hops
          each_id(ids, want)
        end
      end
    end
    if not bare then
      for from = 1, #wanted, CHUNK do
        local names = {}
        for place = from, math.min(from + CHUNK - 1, #wanted) do
          names[#names + 1] = 'e' .. wanted[place]
        end
        -- What does not fit is not even read, but for the part in which that shows.
        local found = size < bytes and reading('checkpoints', 'HMGET', call.saved, unpack(names))
        for place = 1, #names do
          local id, value = wanted[from + place - 1], found and found[place]
          if not found or (value and size > 0 and size + #value > bytes) then
            rest[#rest + 1] = id
          elseif value then
            values[#values + 1], values[#values + 2] = id, shown(call, value)
            size = size + #value
          end
        end
      end
      if entry then
        places = reading('checkpoints', 'HGET', call.saved, 'd' .. where) or ''
      end
      size = 0
      for from = 1, #places - PLACE + 1, PLACE do
        local at = sub(places, from, from + PLACE - 1)
        local write = size < bytes
          and reading('checkpoints', 'HGET', call.saved, 'w' .. where .. at)
        if size >= bytes or (write and size > 0 and size + #write > bytes) then
          rest[#rest + 1], size = at, bytes
        elseif write and not is_tombstone(select(4, peek(shown(call, write)))) then
          writes[#writes + 1], writes[#writes + 2] = at, write
          size = size + #write
        end
      end
    end
    finish_reading(call, 0)
    return {'ok', call.now, entry and sub(where, NAMESPACE + 1) or '', entry or '', lists, values,
      writes, rest}
  end

  -- ARGV  namespace ('': all) before ('': from the newest) after ('' or where the page before
  --       ended) limit bytes (agent event)
  -- reply ok now more {where entry …}, the newest first
  function checkpoint_list(keys, args, audited)
    local call = open_saved(keys, args, audited, 5, true)
    local namespace = optional_text(args, 1, NAMESPACE)
    local before = text(args, 2, 0, MAX_NAME)
    local after = text(args, 3, 0, NAMESPACE + MAX_NAME)
    local limit = integer(args, 4, 1, MAX_BATCH)
    local bytes = integer(args, 5, 1, MAX_REPLY_BYTES)
    local found, size, more = {}, 0, 0
    local name_after = sub(after, NAMESPACE + 1)
    for _, where in ipairs(sorted(call, namespace)) do
      local name = sub(where, NAMESPACE + 1)
      local follows = after == '' or name < name_after or (name == name_after and where < after)
      if follows and (before == '' or name < before) then
        local entry = alive(call, where)
        if entry then
          if #found == 2 * limit or (size > 0 and size + #entry > bytes) then
            more = 1
            break
          end
          found[#found + 1], found[#found + 2] = where, entry
          size = size + #entry
        end
      end
    end
    finish_reading(call, 0)
    return {'ok', call.now, more, found}
  end
end

-- mt1_pop, mt1_remove, mt1_update: what changes an entry that is there. Its sequence and its time
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

-- mt1_clear and mt1_delete: everything of a conversation. What is derived from its messages goes
-- with them. Sequences are not used again. A deleted conversation leaves its head for a while, so
-- that a late retry of an append is known as one.
--
-- KEYS  list head limits usage conversations queue summaries checkpoints
-- ARGV  mark expected-epoch agent event
-- reply ok epoch-before epoch removed now | duplicate … | conflict epoch last now

local function empty(keys, args, deletes)
  local call = open_change(keys, args, 4, 8)
  exactly(args, 4, 'MT_ARGUMENTS')
  local base = sub(call.list, 1, -2)
  same(keys, 8, base .. 'g')
  local mark = optional_text(args, 1, MARK_BYTES)
  local expected = optional_integer(args, 2, 1e15)
  local agent = text(args, 3, 1, 40)
  local event = text(args, 4, 0, MAX_EVENT)
  load_limits(call)
  open_audit(call, event)
  local head = load_head(call)
  local before = repeated(call, mark)
  local saved = saved_size(keys[8])
  if before then
    return before
  elseif not head.known and call.length == 0 and saved == 0 then
    write_event(call, 'O', 0)
    return {'ok', 0, 0, 0, call.now}
  elseif expected and expected ~= head.epoch then
    write_event(call, 'C', head.last)
    return {'conflict', head.epoch, head.last, call.now}
  end
  load_usage(call, agent)
  reading('conversations', 'ZCARD', call.members_key)
  must(call, 'UNLINK', call.list, call.summaries, keys[8])
  must(call, 'ZREM', call.members_key, call.where)
  must_keep_books(call)
  if deletes then
    must(call, 'HDEL', call.head_key, 'meta', 'tag', 'lease', 'saved')
    must(call, 'PEXPIRE', call.head_key, decimal(LEAVE_TIME))
  end
  local ended = call.length > 0
  local released = head.bytes + saved + (ended and CONVERSATION_OVERHEAD or 0)
  local removed = head.count
  head.first, head.oldest, head.gone = head.last + 1, 0, deletes and 1 or head.gone
  local changes = head_after(call, -head.bytes, -head.count, mark, removed, 0)

  redis.call('UNLINK', call.list, call.summaries, keys[8])
  write_head(call, changes)
  if deletes then
    redis.call('HDEL', call.head_key, 'meta', 'tag', 'lease', 'saved')
    redis.call('PEXPIRE', call.head_key, decimal(LEAVE_TIME))
  end
  redis.call('ZREM', call.members_key, call.where)
  write_usage(call, -released, -removed, ended and -1 or 0, 1)
  write_event(call, 'O', head.last)
  return {'ok', call.epoch, head.epoch, removed, call.now}
end

local function clear(keys, args)
  return empty(keys, args, false)
end

local function delete(keys, args)
  return empty(keys, args, true)
end

-- mt1_lease and mt1_summarise: one summariser at a time, and a summary is kept only if nothing that
-- it was made from has changed since. mt1_summaries reads them.
--
-- KEYS  list head limits usage conversations queue summaries (summarise: data-key)

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

-- Shared contexts: mt1_context_update, mt1_context_delete, mt1_context_read, mt1_context_changes.
-- A field's value is a header (sequence: its version; time) and a record. Its header alone stands
-- in `:v` too, as a tombstone after the field was deleted; `#` in `:v` is the context's revision.
-- A version is the revision at which the field changed: it never comes back, not after a deletion
-- of the field, nor of the context.
--
-- KEYS  values versions changes limits usage conversations queue
--       (update: data-key, then subject indexes)

local REVISION = '#'
local FIELD = '^[%w_-]+$'
local MAX_FIELD = 64
local MAX_FIELDS = 4096            -- of a context, deleted ones included
local MAX_CHANGES = 256            -- fields of one update
local MAX_SUBJECTS = 64
local LOG_LENGTH = 1000
local INDEX_LOOK_BACK = 256       -- entries of a subject's index
local FIELD_OVERHEAD = 160         -- bytes of a field in the two hashes and its change
local UPDATE_FIXED = 7
-- After the header: mark, operation, length and text of the agent; then the field.
local CHANGE_FORMAT = '>c16c1B'

local function field_name(args, place)
  local field = text(args, place, 1, MAX_FIELD)
  if not match(field, FIELD) then
    refuse('MT_ARGUMENT ' .. place)
  end
  return field
end

-- A deleted context has nothing but its revision left: it is made by removing the rest, which is
-- allowed over quota too.
local function load_context(call)
  call.revision = peek(reading('versions', 'HGET', call.versions, REVISION)) or 0
  call.size = reading('versions', 'HLEN', call.versions)
  call.deleted = call.revision > 0 and call.size == 1
end

local function change_entry(call, version, agent, mark, operation, field)
  return header(version, call.now, 0, '')
    .. pack(CHANGE_FORMAT, mark, operation, #agent) .. agent .. field
end

-- Whether an update with this mark was made; looked for only on a retry.
local function made_before(call, mark)
  local log = reading('changes', 'LRANGE', call.changes, '0', '-1')
  for place = #log, 1, -1 do
    if sub(log[place], HEADER + 1, HEADER + MARK_BYTES) == mark then
      return peek(log[place])
    end
  end
end

local function read_changes(args, call)
  local fields, names, seen = {}, {}, {}
  for place = UPDATE_FIXED + 1, #args, 3 do
    local field = field_name(args, place)
    if seen[field] then
      refuse('MT_ARGUMENT ' .. place)
    end
    seen[field] = true
    if #args[place + 2] > MAX_RECORD then
      refuse(format('MT_TOO_LARGE %d %d', #args[place + 2], MAX_RECORD))
    end
    fields[#fields + 1] = {
      name = field,
      expected = optional_integer(args, place + 1, 1e12),
      record = text(args, place + 2, 0, MAX_RECORD),
    }
    names[#names + 1] = field
  end
  call.fields, call.names = fields, names
end

-- What stands where versions were expected: {field, entry, …}; an entry is '' where there is none
-- and a bare header where it was deleted.
local function conflicts(call)
  local current = {}
  for _, field in ipairs(call.fields) do
    local alive = field.version and not field.dead and field.version or 0
    if field.expected and field.expected ~= alive then
      local value = reading('values', 'HGET', call.values, field.name)
      current[#current + 1] = field.name
      current[#current + 1] = not field.dead and value or field.head or ''
    end
  end
  return current
end

-- The values of this update that a subject's index does not name among its last entries: one that
-- changes again and again is not written there each time.
local function new_places(call, index)
  local known, places = {}, {}
  for _, entry in ipairs(reading('index', 'LRANGE', index, decimal(-INDEX_LOOK_BACK), '-1')) do
    known[entry] = true
  end
  for _, field in ipairs(call.fields) do
    local where = call.where .. ':' .. field.name
    if field.record ~= '' and not known[where] then
      places[#places + 1] = where
    end
  end
  return places
end

-- ARGV  mark retry expected-revision data-key flags agent event,
--       then for each field: name expected-version record ('' deletes)
-- reply ok revision now memory-share | duplicate revision now
--       | conflict revision now {field entry …}
local function context_update(keys, args)
  at_least(keys, 8, 'MT_KEYS')
  at_least(args, UPDATE_FIXED + 3, 'MT_ARGUMENTS')
  local size = (#args - UPDATE_FIXED) / 3
  if size ~= floor(size) or size > MAX_CHANGES or #keys > 8 + MAX_SUBJECTS then
    refuse('MT_ARGUMENTS ' .. UPDATE_FIXED)
  end
  local call = context_names(keys, true)
  subject_of(keys, 8, call.prefix, 'k:')
  for place = 9, #keys do
    subject_of(keys, place, call.prefix, 'i:')
  end
  local mark = text(args, 1, MARK_BYTES, MARK_BYTES)
  local retry = integer(args, 2, 0, 1) == 1
  local expected = optional_integer(args, 3, 1e12)
  local dek = text(args, 4, 44, 44)
  local fresh = text(args, 5, 0, 1) == 'n'
  local agent = text(args, 6, 1, 40)
  local event = text(args, 7, 0, MAX_EVENT)
  load_limits(call)
  open_audit(call, event)
  read_changes(args, call)
  load_context(call)
  if retry then
    local revision, time = made_before(call, mark)
    if revision then
      return {'duplicate', revision, time}
    end
  end

  local heads = reading('versions', 'HMGET', call.versions, unpack(call.names))
  for index, field in ipairs(call.fields) do
    local version, time, _, kind = peek(heads[index])
    field.head, field.version = heads[index] or nil, version
    field.dead = not version or is_tombstone(kind) or time < call.cutoff
  end
  local alive_revision = call.deleted and 0 or call.revision
  local current = conflicts(call)
  if #current > 0 or (expected and expected ~= alive_revision) then
    write_event(call, 'C', call.revision)
    return {'conflict', alive_revision, call.now, current}
  end
  local fresh_key = check_data_key(call, keys[8], dek, fresh)

  load_usage(call, agent)
  local sets, deletions, versions, log, bytes, added = {}, {}, {}, {}, 0, 0
  -- One is left out after a deletion: whoever watches sees that it missed something.
  local version = call.revision + (call.deleted and 2 or 1)
  for _, field in ipairs(call.fields) do
    local length = reading('values', 'HSTRLEN', call.values, field.name)
    local removes = field.record == ''
    if removes then
      deletions[#deletions + 1] = field.name
      bytes = bytes - length
    else
      local entry = header(version, call.now, 0, '') .. field.record
      sets[#sets + 1], sets[#sets + 2] = field.name, entry
      bytes = bytes + #entry - length
    end
    if not field.version then
      bytes, added = bytes + FIELD_OVERHEAD, added + 1
    end
    versions[#versions + 1] = field.name
    versions[#versions + 1] = removes and tombstone(version, call.now)
      or header(version, call.now, 0, '')
    log[#log + 1] = change_entry(call, version, agent, mark, removes and 'D' or 'S',
      field.name)
  end
  versions[#versions + 1], versions[#versions + 2] = REVISION, header(version, call.now, 0, '')
  if call.size + added > MAX_FIELDS then
    refuse(format('MT_QUOTA fields %d %d 0', call.size, MAX_FIELDS))
  end
  local length = reading('changes', 'LLEN', call.changes)
  reading('conversations', 'ZCARD', call.members_key)
  check_quota(call, bytes, size, 0)

  if #sets > 0 then
    must(call, 'HSET', call.values, '', '')
  end
  if #deletions > 0 then
    must(call, 'HDEL', call.values, '')
  end
  must(call, 'HSET', call.versions, '', '')
  must(call, 'RPUSH', call.changes, '')
  must(call, 'LTRIM', call.changes, '0', '0')
  must(call, 'HSET', call.usage_key, 'bytes', '')
  must(call, 'ZADD', call.members_key, 'NX', '0', call.where)
  local about = {}
  for place = 9, #keys do
    about[place] = new_places(call, keys[place])
    must(call, 'RPUSH', keys[place], call.where)
  end

  if fresh_key then
    redis.call('HSETNX', keys[8], 'dek', dek)
  end
  if #sets > 0 then
    redis.call('HSET', call.values, unpack(sets))
  end
  if #deletions > 0 then
    redis.call('HDEL', call.values, unpack(deletions))
  end
  redis.call('HSET', call.versions, unpack(versions))
  redis.call('RPUSH', call.changes, unpack(log))
  if length + #log > LOG_LENGTH then
    redis.call('LTRIM', call.changes, decimal(-LOG_LENGTH), '-1')
  end
  redis.call('ZADD', call.members_key, 'NX', decimal(call.now), call.where)
  for place = 9, #keys do
    if #about[place] > 0 then
      redis.call('RPUSH', keys[place], unpack(about[place]))
    end
  end
  write_usage(call, bytes, 0, 0, size)
  write_event(call, 'O', version)
  return {'ok', version, call.now, share(call.used, call.memory_limit)}
end

-- ARGV  expected-revision agent event
-- reply ok revision now | empty revision now | conflict revision now {}
local function context_delete(keys, args)
  exactly(keys, 7, 'MT_KEYS')
  exactly(args, 3, 'MT_ARGUMENTS')
  local call = context_names(keys, true)
  local expected = optional_integer(args, 1, 1e12)
  local agent = text(args, 2, 1, 40)
  local event = text(args, 3, 0, MAX_EVENT)
  load_limits(call)
  open_audit(call, event)
  load_context(call)
  if call.revision == 0 or call.deleted then
    write_event(call, 'O', call.revision)
    return {'empty', call.revision, call.now}
  elseif expected and expected ~= call.revision then
    write_event(call, 'C', call.revision)
    return {'conflict', call.revision, call.now, {}}
  end
  load_usage(call, agent)
  local bytes, fields = 0, {}
  for _, field in ipairs(reading('versions', 'HKEYS', call.versions)) do
    if field ~= REVISION then
      fields[#fields + 1] = field
      bytes = bytes + FIELD_OVERHEAD + reading('values', 'HSTRLEN', call.values, field)
    end
  end
  if #fields > 2 * MAX_FIELDS then
    refuse('MT_DAMAGED')
  end
  reading('changes', 'LLEN', call.changes)
  reading('conversations', 'ZCARD', call.members_key)
  must(call, 'UNLINK', call.values, call.changes)
  must(call, 'HDEL', call.versions, '')
  must(call, 'ZREM', call.members_key, call.where)
  must(call, 'HSET', call.usage_key, 'bytes', '')

  redis.call('UNLINK', call.values, call.changes)
  if #fields > 0 then
    redis.call('HDEL', call.versions, unpack(fields))
  end
  redis.call('ZREM', call.members_key, call.where)
  write_usage(call, -bytes, 0, 0, 1)
  write_event(call, 'O', call.revision)
  return {'ok', call.revision, call.now}
end

local function context_reading(keys, args, audited, count)
  exactly(keys, audited and 7 or 4, 'MT_KEYS')
  at_least(args, count + (audited and 2 or 0), 'MT_ARGUMENTS')
  local call = context_names(keys, audited)
  local agent, event
  if audited then
    agent = text(args, count + 1, 1, 40)
    event = text(args, count + 2, 0, MAX_EVENT)
  end
  open_reading(call, audited, agent, event)
  load_context(call)
  return call, count + (audited and 2 or 0)
end

-- ARGV  (agent event), then names; none: all
-- reply ok|deleted revision now {field entry …} {field that did not fit …}
local function context_read(keys, args, audited)
  local call, place = context_reading(keys, args, audited, 0)
  if #args - place > MAX_FIELDS then
    refuse('MT_ARGUMENTS ' .. place)
  end
  local names = {}
  for at = place + 1, #args do
    names[#names + 1] = field_name(args, at)
  end
  if #names == 0 then
    names = reading('values', 'HKEYS', call.values)
    table.sort(names)
  end
  local found, rest, size = {}, {}, 0
  for _, name in ipairs(names) do
    local length = reading('values', 'HSTRLEN', call.values, name)
    if size > 0 and size + length > MAX_REPLY_BYTES then
      rest[#rest + 1] = name
    elseif length > 0 then
      local entry = reading('values', 'HGET', call.values, name)
      local version, time = peek(entry)
      if not version then
        refuse('MT_DAMAGED')
      elseif time >= call.cutoff then
        found[#found + 1], found[#found + 2] = name, entry
        size = size + length
      end
    end
  end
  finish_reading(call, call.revision)
  return {call.deleted and 'deleted' or 'ok', call.revision, call.now, found, rest}
end

-- ARGV  since (agent event)
-- reply ok|missed|deleted revision now {change …}; missed: the changes since then are not all kept
local function context_changes(keys, args, audited)
  local call = context_reading(keys, args, audited, 1)
  exactly(args, audited and 3 or 1, 'MT_ARGUMENTS')
  local since = integer(args, 1, 0, 1e12)
  local status, log = 'ok', {}
  if call.deleted then
    status = 'deleted'
  elseif since > call.revision then
    status = 'rewound'
  elseif since < call.revision then
    local all = reading('changes', 'LRANGE', call.changes, decimal(-LOG_LENGTH), '-1')
    local oldest = peek(all[1])
    -- Of the oldest change in a full log, a part may be cut off.
    if not oldest or oldest > since + 1 or (oldest == since + 1 and #all == LOG_LENGTH) then
      status = 'missed'
    else
      for _, change in ipairs(all) do
        local revision = peek(change) or refuse('MT_DAMAGED')
        if revision > since then
          log[#log + 1] = change
        end
      end
    end
  end
  finish_reading(call, call.revision)
  return {status, call.revision, call.now, log}
end

-- mt1_index: where a subject's records are: conversations as <scope>:<conversation>, contexts as
-- c:<context>, in the order in which they began. mt1_compact: entries that lead to nothing any more
-- go. mt1_event: for what happened at the agent.

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

-- mt1_expire, mt1_context_expire: what has passed its cut-off goes, also where nobody appends.
-- mt1_expiring, mt1_context_expiring: what would go, now or at a cut-off to come.
--
-- The operator calls them. An agent may, and gains nothing: what its rules do not let it remove by
-- hand (a hold, a minimum) it does not remove here. Cut-offs of what is removed come from o:limits
-- alone; without one, which is what a legal hold means, nothing goes.
--
-- An agent can write a list directly. An entry dated into the future would never expire: it gets
-- the server's time. What has no date is as old as the entry behind it, else it is counted and
-- stays.
--
-- The library is one chunk of Lua, which may have 200 local variables: those that only this file
-- needs end with it.

local expire, expiring, context_expire, context_expiring

do

local MAX_LOOK = 2000              -- entries that one call looks at
local MAX_LOOK_BYTES = 4194304     -- bytes of them
local HDEL_AT_ONCE = 1000          -- Lua's stack bounds what unpack may return

-- What of a list has passed the cut-off, from an index on: so many entries at its head (trim), and
-- what is to be put in the place of others (sets). An entry behind a younger one leaves a
-- tombstone, which tells a reader why a writer's counter is missing.
local function outdated(call, what, key, start, limit, cutoff)
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
      local sequence, time, tokens, kind = peek(entry)
      size = size + #entry
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
        if time > call.now + CLOCK_AHEAD then
          time = call.now
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
  if not content then
    content = call.cutoff
    derived = limit(reading('limits', 'HGET', call.limits_key, 'cutoff_derived')) or 0
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
  call.head, call.cutoff = head, content
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
    found = outdated(call, 'summaries', call.summaries, start, most, derived)
  else
    found = outdated(call, 'list', call.list, start, most, content)
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
-- what was removed whole, its summaries; a call that removes goes on from next as the list is then
local function expiry_reply(call, found, removed)
  local next = -1
  if found.next then
    next = found.next - (removed and found.trim or 0)
  end
  return {'ok', next, found.live, found.trim + #found.sets - found.redated, found.bytes,
    found.ends and 1 or 0, found.redated, found.undated, found.kept, found.oldest or 0, call.now,
    found.summaries or 0}
end

-- KEYS  list head limits usage conversations queue summaries checkpoints
-- ARGV  part (l messages, s summaries, g what a graph keeps: as a whole) start limit
--       cutoff-content cutoff-derived ('': of o:limits)
function expiring(keys, args)
  local call, found = load_expiring(keys, args, 5)
  return expiry_reply(call, found, false)
end

-- Everything of the conversation, as mt1_delete leaves it: its head stays a while for late retries.
local function end_conversation(call, found)
  local head = call.head
  local bytes = head.known and head.bytes or found.bytes
  local summaries = redis.pcall('LLEN', call.summaries)
  found.summaries = type(summaries) == 'number' and summaries or 0
  must(call, 'UNLINK', call.list, call.summaries, call.checkpoints)
  must(call, 'HSET', call.head_key, 'state', '')
  must(call, 'HDEL', call.head_key, 'meta', 'tag', 'lease')
  must(call, 'PEXPIRE', call.head_key, decimal(LEAVE_TIME))
  must_write_books(call, false)
  local ended = found.length > 0 and 1 or 0

  redis.call('UNLINK', call.list, call.summaries, call.checkpoints)
  redis.call('HDEL', call.head_key, 'meta', 'tag', 'lease')
  if head.known then
    head.epoch, head.first, head.oldest = head.epoch + 1, head.last + 1, 0
    head.bytes, head.count, head.gone, head.covered = 0, 0, 1, 0
    redis.call('HSET', call.head_key, 'state', state_of(head))
  end
  redis.call('PEXPIRE', call.head_key, decimal(LEAVE_TIME))
  write_books(call, bytes + ended * CONVERSATION_OVERHEAD, found.live, ended)
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

  if found.trim > 0 then
    expire_checkpoints(call)
  end
  write_books(call, found.bytes, 0, 0)
  return expiry_reply(call, found, true)
end

-- ARGV  part start limit
function expire(keys, args)
  local call, found, part = load_expiring(keys, args, 3)
  load_books(call)
  if call.cutoff == 0 then
    found = {live = 0, trim = 0, sets = {}, redated = 0, bytes = 0, undated = 0, kept = 0}
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
  must_write_books(call, oldest)

  for _, one in ipairs(found.sets) do
    redis.call('LSET', key, decimal(one.index), one.entry)
  end
  if found.trim > 0 then
    redis.call('LTRIM', key, decimal(found.trim), '-1')
  end
  if changes and head.known then
    redis.call('HSET', call.head_key, 'state', state_of(head))
  end
  local empties = found.empties and 1 or 0
  write_books(call, found.bytes + empties * CONVERSATION_OVERHEAD, messages, empties)
  return expiry_reply(call, found, true)
end

-- What of a context has passed the cut-off, from behind the value of that name on.
local function outdated_values(call, after, cutoff)
  local found = {
    values = {}, versions = {}, sets = {}, live = 0, bytes = 0, redated = 0, undated = 0, kept = 0,
    oldest = nil, next = '', ends = false, log = 0, member = nil,
  }
  local names = reading('values', 'HKEYS', call.values)
  if #names > 2 * MAX_FIELDS or call.size > 2 * MAX_FIELDS then
    refuse('MT_DAMAGED')
  end
  table.sort(names)
  local standing, size = {}, 0
  for place, name in ipairs(names) do
    standing[name] = true
    if name > after and found.next == '' then
      local entry = reading('values', 'HGET', call.values, name)
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
      if size > MAX_LOOK_BYTES and place < #names then
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
    found.log = outdated(call, 'changes', call.changes, 0, MAX_LOOK, cutoff).trim
  end
  return found
end

local function load_expiring_context(keys, args, fixed)
  exactly(keys, 7, 'MT_KEYS')
  exactly(args, fixed, 'MT_ARGUMENTS')
  local call = context_names(keys, true)
  local after = text(args, 1, 0, 65536)
  call.cutoff = expiry_of(call, fixed == 2 and optional_integer(args, 2, 1e15) or nil, 0)
  load_context(call)
  return call, outdated_values(call, after, call.cutoff)
end

-- reply ok next ('': at the end) live entries bytes ends redated undated kept oldest now 0
local function context_expiry_reply(call, found)
  return {'ok', found.next, found.live, #found.values + #found.versions, found.bytes,
    found.ends and 1 or 0, found.redated, found.undated, found.kept, found.oldest or 0, call.now, 0}
end

-- KEYS  values versions changes limits usage conversations queue
-- ARGV  after ('': from the first value) cutoff ('': of o:limits)
function context_expiring(keys, args)
  return context_expiry_reply(load_expiring_context(keys, args, 2))
end

local function hdel(key, names)
  for first = 1, #names, HDEL_AT_ONCE do
    redis.call('HDEL', key, unpack(names, first, math.min(first + HDEL_AT_ONCE - 1, #names)))
  end
end

-- ARGV  after. The revision stays, as after a deletion: no version ever comes back.
function context_expire(keys, args)
  local call, found = load_expiring_context(keys, args, 1)
  load_books(call)
  if call.cutoff == 0 then
    return {'ok', '', 0, 0, 0, 0, 0, 0, 0, 0, call.now, 0}
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
  return context_expiry_reply(call, found)
end

end

-- mt1_usage: the tenant's counters beside its limits.
--
-- KEYS  usage conversations limits
-- reply ok now memory conversations writes-per-second held {field value …} (limits: -1 is none)

local function usage(keys, args)
  exactly(keys, 3, 'MT_KEYS')
  exactly(args, 0, 'MT_ARGUMENTS')
  local prefix = type(keys[1]) == 'string' and match(keys[1], '^(mt:{[%w.-]+}:)u$')
  if not prefix then
    refuse('MT_KEY 1')
  end
  local call = {
    usage_key = keys[1], members_key = same(keys, 2, prefix .. 'x'),
    limits_key = same(keys, 3, prefix .. 'o:limits'),
  }
  load_limits(call)
  local held = reading('limits', 'HGET', call.limits_key, 'held') == '1'
  local counters = reading('usage', 'HGETALL', call.usage_key)
  return {'ok', call.now, call.memory_limit or -1, call.conversations_limit or -1,
    call.rate_limit or -1, held and 1 or 0, counters}
end

-- What the library offers. A refusal becomes an error reply here, and an event where the tenant is
-- audited and the call came that far.

local function guarded(implementation, audited)
  return function(keys, args)
    prepare()
    pending = nil
    local ok, result = pcall(implementation, keys, args, audited)
    if ok then
      return result
    elseif type(result) == 'table' and result.refusal then
      if pending then
        write_event(pending, 'R', 0)
      end
      return redis.error_reply(result.refusal)
    end
    -- An error of this library's own: only the line is told, the text may hold a value.
    return redis.error_reply('MT_INTERNAL ' .. (match(tostring(result), ':%d+:') or ''))
  end
end

local function offer(name, implementation, flags, audited)
  redis.register_function{
    function_name = 'mt1_' .. name, flags = flags, callback = guarded(implementation, audited),
  }
end

-- Each read twice: by FCALL_RO, and as one that may leave an event. Both work on a full server.
local function offer_reading(name, implementation)
  offer(name, implementation, {'no-writes'}, false)
  offer(name .. '_audited', implementation, {'allow-oom'}, true)
end

offer('append', append, {})
offer('update', update, {})
offer('summarise', summarise, {})
offer('lease', lease, {})
offer('context_update', context_update, {})
offer('checkpoint_put', checkpoint_put, {})
offer('checkpoint_writes', checkpoint_writes, {})
-- Removing works on a full server too.
offer('pop', pop, {'allow-oom'})
offer('remove', remove, {'allow-oom'})
offer('clear', clear, {'allow-oom'})
offer('delete', delete, {'allow-oom'})
offer('context_delete', context_delete, {'allow-oom'})
offer('checkpoint_delete', checkpoint_delete, {'allow-oom'})
offer_reading('read', read_range)
offer_reading('delta', read_delta)
offer_reading('tail', read_tail)
offer_reading('context_read', context_read)
offer_reading('context_changes', context_changes)
offer_reading('summaries', read_summaries)
offer_reading('index', read_index)
offer_reading('checkpoint_get', checkpoint_get)
offer_reading('checkpoint_list', checkpoint_list)
offer('event', leave_event, {'allow-oom'})
offer('expire', expire, {'allow-oom'})
offer('expiring', expiring, {'no-writes'})
offer('context_expire', context_expire, {'allow-oom'})
offer('context_expiring', context_expiring, {'no-writes'})
offer('compact', compact, {'allow-oom'})
offer('usage', usage, {'no-writes'})
