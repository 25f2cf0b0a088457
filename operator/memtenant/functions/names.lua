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
