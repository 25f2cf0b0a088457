-- usage: the tenant's counters beside its limits.
--
-- KEYS  usage conversations limits
-- reply ok now memory conversations writes-per-second held {field value …} (limits: -1 is none)

do

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

offer('usage', usage, {'no-writes'})

end
