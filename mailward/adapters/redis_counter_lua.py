"""What the scripts of mailward.adapters.redis_counter_scripts have in common: time, fields, rings and sets of items, in Lua 5.1.

Keys and values are those of mailward.adapters.redis_counter_keys and mailward.policy.ratelimit.
"""

from __future__ import annotations

from mailward.policy.ratelimit import BUCKETS, ITEM_OCTETS, KNOWN_SECONDS, MAX_AMOUNT, MAX_ITEMS

SENT_SECONDS = 5 * 86400.0
MAX_SENT = 5000  # queue ids of an account
SLACK_SECONDS = 600.0  # a counter that has expired stays that much longer: clocks differ, and step back
MAX_TTL = 100 * 366 * 86400.0  # Redis refuses what overflows its clock
TRIMMED = 64  # queue ids more than there should be: they are not counted each time
PRUNED = 20  # of the fields that have expired, in one step: two for each that is added would do
MAX_NUMBERS = 4000  # of a counter: as many as a script's stack bears; a limit has about 64 for each of its windows

_NUMBERS = {
    "BUCKETS": BUCKETS,
    "MAX_ITEMS": MAX_ITEMS,
    "ITEM_OCTETS": ITEM_OCTETS,
    "KNOWN_SECONDS": KNOWN_SECONDS,
    "MAX_AMOUNT": MAX_AMOUNT,
    "SENT_SECONDS": SENT_SECONDS,
    "MAX_SENT": MAX_SENT,
    "SLACK_SECONDS": SLACK_SECONDS,
    "MAX_TTL": MAX_TTL,
    "TRIMMED": TRIMMED,
    "PRUNED": PRUNED,
    "MAX_NUMBERS": MAX_NUMBERS,
}
COMMON = (
    "".join(f"local {name} = {number!r}\n" for name, number in _NUMBERS.items())
    + """
local AMOUNT, FIRST_TIME, DISTINCT = 0, 1, 2
local ENFORCED, SHADOW, FORCED = 0, 1, 2

local function time_of(given)
  if given ~= '' then return (struct.unpack('<d', given)) end
  local time = redis.call('TIME')
  return tonumber(time[1]) + tonumber(time[2]) / 1000000
end
local function exactly(number)
  return string.format('%.17g', number)
end
local function keep_for(key, seconds)
  local wanted = math.max(1, math.ceil(math.min(seconds + 2 * SLACK_SECONDS, MAX_TTL) * 1000))
  if redis.call('PTTL', key) < wanted then redis.call('PEXPIRE', key, string.format('%.0f', wanted)) end
end

-- What is told of the charge whose field is ARGV[at].
local function charge_at(at)
  local one, told = {field = ARGV[at], item = ARGV[at + 2], windows = {}}, ARGV[at + 1]
  one.hash, one.index, one.items, one.items_index, one.kind, one.force, one.cost =
    struct.unpack('<HHHHBBd', told)
  for from = 19, #told, 16 do
    local most, seconds = struct.unpack('<dd', told, from)
    one.windows[#one.windows + 1] = {most = most, seconds = seconds, width = seconds / BUCKETS}
  end
  one.items_field = string.match(one.field, ' (.*)') or ''
  return one
end
-- What a field has, and until when; nothing is ''.
local function read(key, field)
  local kept = redis.call('HGET', key, field)
  if not kept or #kept < 8 then return '' end
  return string.sub(kept, 9), (struct.unpack('<d', kept))
end
-- What holds the field stays until it has expired. `before` is when it would have: if that is about the same, it is seen to.
local function put(key, index, field, value, expires, before, now)
  redis.call('HSET', key, field, struct.pack('<d', expires) .. value)
  if index then redis.call('ZADD', index, exactly(expires), field) end
  if not before or math.floor(before / SLACK_SECONDS) ~= math.floor(expires / SLACK_SECONDS) then
    keep_for(key, expires - now)
    if index then keep_for(index, expires - now) end
  end
  if not index then return end
  local over = redis.call('ZRANGEBYSCORE', index, '-inf', exactly(now - SLACK_SECONDS), 'LIMIT', '0', PRUNED)
  if #over > 0 then
    redis.call('HDEL', key, unpack(over))
    redis.call('ZREM', index, unpack(over))
  end
end
local function remove(key, index, field)
  redis.call('HDEL', key, field)
  if index then redis.call('ZREM', index, field) end
end

-- A ring is bucket, amount, bucket, amount ...
local function rings_of(value)
  local rings, count = {}, math.min(math.floor(#value / 8), MAX_NUMBERS)
  if count == 0 then return rings end
  local numbers, at, sum = {struct.unpack('<' .. string.rep('d', count), value)}, 1, 0
  for place = 1, count do sum = sum + numbers[place] end
  if sum - sum ~= 0 then return rings end -- infinite, or no number at all: it is no counter
  while at + 1 <= count do
    local seconds, length = numbers[at], numbers[at + 1]
    if not (0 <= length and length <= BUCKETS + 1) then break end
    local ring, last = {}, at + 1 + 2 * math.floor(length)
    for place = at + 2, math.min(last, count) - 1, 2 do
      ring[#ring + 1] = numbers[place]
      ring[#ring + 1] = numbers[place + 1]
    end
    rings[seconds] = ring
    at = last + 1
  end
  return rings
end
local function packed(windows, rings)
  local numbers = {}
  for number, window in ipairs(windows) do
    numbers[#numbers + 1] = window.seconds
    numbers[#numbers + 1] = #rings[number] / 2
    for _, each in ipairs(rings[number]) do numbers[#numbers + 1] = each end
  end
  return struct.pack('<' .. string.rep('d', #numbers), unpack(numbers))
end
local function position(items, item)
  local at = string.find(items, item, 1, true)
  while at and (at - 1) % ITEM_OCTETS ~= 0 do at = string.find(items, item, at + 1, true) end
  return at
end
-- Items in the order in which they were added, and the second after which each was seen last.
local function entries_of(value)
  local items, seconds, places = {}, {}, {}
  for at = 1, #value - 7, 8 do
    local item = string.sub(value, at, at + 3)
    places[item] = places[item] or #items + 1
    items[places[item]], seconds[places[item]] = item, (struct.unpack('<I4', value, at + 4))
  end
  return items, seconds
end
local function packed_entries(items, seconds)
  local parts = {}
  for place = math.max(1, #items - MAX_ITEMS + 1), #items do
    parts[#parts + 1] = items[place] .. struct.pack('<I4', seconds[place])
  end
  return table.concat(parts)
end
"""
)
