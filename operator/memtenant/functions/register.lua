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
    function_name = PREFIX .. name, flags = flags, callback = guarded(implementation, audited),
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
-- The operator's alone: no agent reaches their keys.
offer('passed', passed, {'allow-oom'})
offer('lead', lead, {'allow-oom'})
