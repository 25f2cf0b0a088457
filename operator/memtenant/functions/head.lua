-- The head of a conversation: its hash `:h`. It may hold anything, since agents may write it; what
-- cannot be read counts as absent, and the list itself tells what was lost.

local WRITER_FORMAT = '>c8I4I2I5I6'  -- id, last counter, size and last sequence of its batch, time
local WRITER_BYTES = 25
local MAX_WRITERS = 512
local WRITER_IDLE = 600000           -- ms
local WRITER_LIFE = 86400000         -- ms that a writer writes: its opening bounds a message's age
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
    if unpack_bytes('>I4', writer) * 1000 < call.now - WRITER_LIFE then
      refuse('MT_WRITER ' .. decimal(call.now))
    end
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
