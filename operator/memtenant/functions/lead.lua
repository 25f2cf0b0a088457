-- lead: the term of the operator that leads, written on a full server too, which refuses a SET.
--
-- KEYS  mt:store:epoch, or one of a Cluster's
-- ARGV  term
-- reply ok
--
-- No agent reaches the key. The operator calls this in the transaction that compares the terms.

do

local function lead(keys, args)
  exactly(keys, 1, 'MT_KEYS')
  exactly(args, 1, 'MT_ARGUMENTS')
  local key = keys[1]
  if key ~= 'mt:store:epoch' and not match(key, '^mt:store:epoch:{%d+}$') then
    refuse('MT_KEY 1')
  end
  local term = text(args, 1, 3, 300)
  if not match(term, '^%d+ %S') then
    refuse('MT_ARGUMENT 1')
  end
  redis.call('SET', key, term)
  return {'ok'}
end

offer('lead', lead, {'allow-oom'})

end
