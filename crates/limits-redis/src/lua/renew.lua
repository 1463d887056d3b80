-- Extends an owner's claims. KEYS: the claims. ARGV: owner, lease in milliseconds.
for _, key in ipairs(KEYS) do
  if redis.call('GET', key) == ARGV[1] then
    redis.call('PEXPIRE', key, ARGV[2])
  end
end
return {}
