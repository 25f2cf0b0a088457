-- Offers a Function, where it is written. A refusal becomes an error reply here, and an event where
-- the tenant is audited and the call came that far.
--
-- The library is one chunk of Lua, which may have 200 local variables: those that only one of the
-- files behind this one needs end with it.

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
