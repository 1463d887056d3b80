-- Says that a dispatcher is present. ARGV: its name, the one that it had before or nothing, and after how many
-- milliseconds those that were not heard of are forgotten.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
if ARGV[2] ~= '' then
  redis.call('ZREM', 'signalpost:present', ARGV[2])
end
redis.call('ZADD', 'signalpost:present', string.format('%.0f', now), ARGV[1])
redis.call('ZREMRANGEBYSCORE', 'signalpost:present', '-inf', string.format('%.0f', now - ARGV[3] * 1000))
redis.call('PEXPIRE', 'signalpost:present', ARGV[3])
return {}
