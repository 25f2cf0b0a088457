-- What a graph keeps of a thread: checkpoint_put, checkpoint_writes,
-- checkpoint_delete, checkpoint_get, checkpoint_list. One hash, `:g`; the first byte
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
local function checkpoint_put(keys, args)
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
local function checkpoint_writes(keys, args)
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
local function checkpoint_delete(keys, args)
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
local function checkpoint_get(keys, args, audited)
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
local function checkpoint_list(keys, args, audited)
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

offer('checkpoint_put', checkpoint_put, {})
offer('checkpoint_writes', checkpoint_writes, {})
offer('checkpoint_delete', checkpoint_delete, {'allow-oom'})
offer_reading('checkpoint_get', checkpoint_get)
offer_reading('checkpoint_list', checkpoint_list)

end
