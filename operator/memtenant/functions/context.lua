-- Shared contexts: context_update, context_delete, context_read, context_changes.
-- A field's value is a header (sequence: its version; time) and a record. Its header alone stands
-- in `:v` too, as a tombstone after the field was deleted; `#` in `:v` is the context's revision.
-- A version is the revision at which the field changed: it never comes back, not after a deletion
-- of the field, nor of the context.
--
-- KEYS  values versions changes limits usage conversations queue
--       (update: data-key, then subject indexes)

local REVISION = '#'
local MAX_FIELDS = 4096            -- of a context, deleted ones included
local FIELD_OVERHEAD = 160         -- bytes of a field in the two hashes and its change

-- A deleted context has nothing but its revision left: it is made by removing the rest, which is
-- allowed over quota too.
local function load_context(call)
  call.revision = peek(reading('versions', 'HGET', call.versions, REVISION)) or 0
  call.size = reading('versions', 'HLEN', call.versions)
  call.deleted = call.revision > 0 and call.size == 1
end

do

local FIELD = '^[%w_-]+$'
local MAX_FIELD = 64
local MAX_CHANGES = 256            -- fields of one update
local MAX_SUBJECTS = 64
local LOG_LENGTH = 1000
local INDEX_LOOK_BACK = 256       -- entries of a subject's index
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

offer('context_update', context_update, {})
offer('context_delete', context_delete, {'allow-oom'})
offer_reading('context_read', context_read)
offer_reading('context_changes', context_changes)

end
