-- Takes tokens from buckets. KEYS: the buckets. ARGV, five per bucket: tokens per second, burst, wanted, how many more if
-- they are ready, and how many were used while this could not be asked (negative: taken before, and not used). Behind
-- those of all buckets: the caller's name among the dispatchers, or nothing, how many of them live, for how many
-- milliseconds one is present, until when somebody waits for the answer, in microseconds (later nothing is taken, as
-- nobody would use it), and how many microseconds ahead a token is granted.
-- Answers four integers per bucket: granted, how many of these are ready, and in nanoseconds how long until the next one is,
-- granted or not, and from then on between two.
--
-- Dispatchers that live and are not present use a part of the rate elsewhere, each its own: the rest is given here.
-- A bucket is kept until it is full again. One that is not known holds what came since these data were begun; what was
-- granted ahead before that is used by then.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local common = 5 * #KEYS
local name, alive, lease = ARGV[common + 1], tonumber(ARGV[common + 2]), tonumber(ARGV[common + 3]) * 1000
if now > tonumber(ARGV[common + 4]) then
  return redis.error_reply('ERR asked too long ago')
end
local ahead = tonumber(ARGV[common + 5]) / 1000000
local born = redis.call('GET', 'signalpost:born')
if not born then
  born = string.format('%.0f', now)
  redis.call('SET', 'signalpost:born', born)
end
if name ~= '' then
  redis.call('ZADD', 'signalpost:present', string.format('%.0f', now), name)
  redis.call('PEXPIRE', 'signalpost:present', 60000)
end
local part = 1
if alive > 1 then
  local since = string.format('(%.0f', now - lease)
  part = math.min(alive, math.max(1, redis.call('ZCOUNT', 'signalpost:present', since, '+inf'))) / alive
end
local age = math.max(0, now - tonumber(born))
local answers = {}
for i, key in ipairs(KEYS) do
  local limit = { tonumber(ARGV[5 * i - 4]), tonumber(ARGV[5 * i - 3]) }
  local rate, burst = limit[1] * part, math.max(1, limit[2] * part)
  local wanted, extra, used = tonumber(ARGV[5 * i - 2]), tonumber(ARGV[5 * i - 1]), tonumber(ARGV[5 * i])
  local tokens
  local bucket = redis.call('GET', key)
  if bucket then
    local space = string.find(bucket, ' ', 1, true)
    local at = tonumber(string.sub(bucket, space + 1))
    -- A clock that was set back gives nothing, and takes nothing away.
    tokens = tonumber(string.sub(bucket, 1, space - 1)) + math.max(0, now - at) * rate / 1000000
  else
    tokens = (age / 1000000 - ahead) * rate
  end
  -- Granted ahead it is in debt, for no longer than that, whatever was used elsewhere and whatever the rate was before.
  tokens = math.max(-rate * ahead, math.min(burst, math.min(burst, tokens) - used))
  local whole = math.max(0, math.floor(tokens + 1e-9))
  local granted = math.max(0, math.min(wanted, math.floor(tokens + rate * ahead + 1e-9)))
  granted = granted + math.max(0, math.min(extra, whole - wanted))
  local ready = math.min(whole, granted)
  answers[4 * i - 3] = granted
  answers[4 * i - 2] = ready
  answers[4 * i - 1] = math.max(0, math.ceil((ready + 1 - tokens) / rate * 1000000000))
  answers[4 * i] = math.ceil(1000000000 / rate)
  tokens = tokens - granted
  -- By the whole rate and burst: what is not known is full by both.
  local full_in = math.ceil((limit[2] - tokens) / rate * 1000) + 1
  redis.call('SET', key, string.format('%.17g %.0f', tokens, now), 'PX', string.format('%.0f', math.max(1, full_in)))
end
return answers
