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

-- Ends the call. `offer` turns it into an error reply; nothing was written when it is raised.
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
