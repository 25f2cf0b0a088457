-- clear and delete: everything of a conversation. What is derived from its messages goes
-- with them. Sequences are not used again. A deleted conversation leaves its head for a while, so
-- that a late retry of an append is known as one.
--
-- KEYS  list head limits usage conversations queue summaries checkpoints
-- ARGV  mark expected-epoch agent event
-- reply ok epoch-before epoch removed now | duplicate … | conflict epoch last now

do

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

-- Removing works on a full server too.
offer('clear', clear, {'allow-oom'})
offer('delete', delete, {'allow-oom'})

end
