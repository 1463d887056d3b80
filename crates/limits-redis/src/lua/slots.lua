-- Shares slots among owners, as `SlotTable` of signalpost-limits does, where the rule is told. KEYS: the destinations'
-- shares, hashes of "until needed taken" by owner. ARGV, three per key: how many slots there are, held, wanted. Behind
-- those of all keys: the owner, the lease in milliseconds, and how many dispatchers live.
-- Answers for each key how many the owner may have out. Every call begins at one moment, for all its keys.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local common = 3 * #KEYS
local owner, lease, alive = ARGV[common + 1], tonumber(ARGV[common + 2]), tonumber(ARGV[common + 3])
local born = redis.call('GET', 'signalpost:born')
if not born then
  born = string.format('%.0f', now * 1000)
  redis.call('SET', 'signalpost:born', born)
end
-- Others may hold what was forgotten: until they had time to tell it, everybody keeps to an equal part.
local young = now - tonumber(born) / 1000 < lease
local answers = {}
for i, key in ipairs(KEYS) do
  local max, held, wanted = tonumber(ARGV[3 * i - 2]), tonumber(ARGV[3 * i - 1]), tonumber(ARGV[3 * i])
  local needed = held + wanted
  local owners, known = {}, redis.call('HGETALL', key)
  for at = 1, #known, 2 do
    local until_, their_needed, taken = string.match(known[at + 1], '^(%d+) (%d+) (%d+)$')
    if known[at] ~= owner and until_ and tonumber(until_) > now then
      owners[#owners + 1] = { name = known[at], needed = tonumber(their_needed), taken = tonumber(taken) }
    else
      redis.call('HDEL', key, known[at])
    end
  end
  answers[i] = 0
  if needed > 0 then
    owners[#owners + 1] = { name = owner, needed = needed, taken = held }
    table.sort(owners, function(a, b) return a.name < b.name end)
    local present = #owners
    local turn = math.floor(now / lease) % present
    local fair, free, missing = 0, max, 0
    for rank, other in ipairs(owners) do
      local part = math.floor(max / present)
      if max < present then
        part = (rank - 1 + turn) % present < max and 1 or 0
      end
      if other.name == owner then
        fair = part
      else
        free = math.max(0, free - other.taken)
        missing = missing + math.max(0, math.min(part, other.needed) - other.taken)
      end
    end
    local allowed = math.min(needed, free, math.max(fair, free - missing))
    if young then
      allowed = math.min(allowed, math.max(1, math.floor(max / alive)))
    end
    answers[i] = allowed
    local share = string.format('%.0f %.0f %.0f', now + lease, needed, math.max(allowed, held))
    redis.call('HSET', key, owner, share)
    redis.call('PEXPIRE', key, lease)
  end
end
return answers
