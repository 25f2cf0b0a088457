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
