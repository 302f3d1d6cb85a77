"""The scripts that change greylisting's memory in Redis, each in one step on one node.

Keys and values are those of mailward.adapters.redis_records. Numbers come and go packed; nothing is made part of a script.
"""

from __future__ import annotations

from mailward.adapters.redis_records import LATE_SECONDS, MAX_TTL
from mailward.adapters.redis_servers import Script
from mailward.policy.greylist import CLOCK_SKEW, EXPECTED_FROM_PASSES, EXPECTED_INTERVAL, REFRESH_PART

_NUMBERS = {
    "MAX_TTL": MAX_TTL,
    "LATE_SECONDS": LATE_SECONDS,
    "REFRESH_PART": REFRESH_PART,
    "CLOCK_SKEW": CLOCK_SKEW,
    "EXPECTED_FROM_PASSES": EXPECTED_FROM_PASSES,
    "EXPECTED_INTERVAL": EXPECTED_INTERVAL,
}
_COMMON = (
    "".join(f"local {name} = {number!r}\n" for name, number in _NUMBERS.items())
    + """
local function time_of(given)
  if given ~= '' then return (struct.unpack('<d', given)) end
  local time = redis.call('TIME')
  return tonumber(time[1]) + tonumber(time[2]) / 1000000
end
local function keep(key, value, seconds)
  local ttl = math.max(1, math.ceil(math.min(seconds, MAX_TTL) * 1000))
  redis.call('SET', key, value, 'PX', string.format('%.0f', ttl))
end
"""
)

# mailward.policy.greylist.sight(), line by line. KEYS: origin, triplet, and the correspondent where it counts and lies on the
# same node. ARGV: time or '', windows, 'y' where a correspondent is known to count.
SIGHT = Script(
    _COMMON
    + """
local ORIGIN, CORRESPONDENT, PASSED, RETRIED, EARLY, NEW, LATE = 0, 1, 2, 3, 4, 5, 6
local now = time_of(ARGV[1])
local delay, retry_window, remember, to_whitelist, pass_interval = struct.unpack('<ddddd', ARGV[2])

local function answer(memory, first_seen, expected)
  return struct.pack('<BBdd', memory, expected, now, first_seen)
end
local function refreshed(expires)
  local wanted = now + remember
  if wanted - expires >= remember * REFRESH_PART then return wanted end
  return expires
end
local function keep_origin(passes, counted_at, expires, expected_at)
  keep(KEYS[1], struct.pack('<dddd', passes, counted_at, expires, expected_at), expires - now)
end
local function keep_triplet(first_seen, passed_at, expires, expected, longer)
  keep(KEYS[2], struct.pack('<dddB', first_seen, passed_at, expires, expected), expires - now + longer)
end

local value = redis.call('GET', KEYS[1])
local is_known, passes, counted_at, origin_expires, expected_at = false, 0, now, 0, 0
if value and #value == 32 then
  local kept = {struct.unpack('<dddd', value)}
  if kept[3] > now then is_known, passes, counted_at, origin_expires, expected_at = true, unpack(kept) end
end
if is_known and 0 < to_whitelist and to_whitelist <= passes then
  local expires = refreshed(origin_expires)
  if expires ~= origin_expires then keep_origin(passes, counted_at, expires, expected_at) end
  return answer(ORIGIN, 0, 0)
end

local is_correspondent = ARGV[3] == 'y'
if KEYS[3] then
  local until_then = redis.call('GET', KEYS[3])
  is_correspondent = until_then and #until_then == 8 and struct.unpack('<d', until_then) > now
end
if is_correspondent then return answer(CORRESPONDENT, 0, 0) end

value = redis.call('GET', KEYS[2])
local first_seen, passed_at, expires, expected
if value and #value == 25 then
  first_seen, passed_at, expires, expected = struct.unpack('<dddB', value)
end
local is_ahead = first_seen and passed_at == 0 and first_seen - now > CLOCK_SKEW
if not first_seen or expires <= now or is_ahead then
  local memory = (not first_seen or passed_at ~= 0) and NEW or LATE
  local is_expected = is_known and passes >= EXPECTED_FROM_PASSES and math.abs(now - expected_at) >= EXPECTED_INTERVAL
  expected = is_expected and 1 or 0
  keep_triplet(now, 0, now + retry_window, expected, LATE_SECONDS)
  if is_expected then keep_origin(passes, counted_at, origin_expires, now) end
  return answer(memory, now, expected)
end
if passed_at ~= 0 then
  local later = refreshed(expires)
  if later ~= expires then keep_triplet(first_seen, passed_at, later, expected, 0) end
  return answer(PASSED, first_seen, expected)
end
if now - first_seen < delay then return answer(EARLY, first_seen, expected) end
keep_triplet(first_seen, now, now + remember, expected, 0)
if not is_known or math.abs(now - counted_at) >= pass_interval then passes, counted_at = passes + 1, now end
keep_origin(passes, counted_at, now + remember, expected_at)
return answer(RETRIED, first_seen, expected)
"""
)

# KEYS: something that has expired by a clock that is not Redis's. ARGV: its value, in case it has been refreshed meanwhile.
DROP = Script("if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end")

# KEYS: the orders. ARGV: a field and its value, likewise.
DROP_ENTRY = Script("if redis.call('HGET', KEYS[1], ARGV[1]) == ARGV[2] then redis.call('HDEL', KEYS[1], ARGV[1]) end")

# KEYS: a correspondent. ARGV: time or '', lifetime. What was remembered for longer stays so.
RECORD = Script(
    _COMMON
    + """
local now, lifetime = time_of(ARGV[1]), struct.unpack('<d', ARGV[2])
local value = redis.call('GET', KEYS[1])
if not value or #value ~= 8 or struct.unpack('<d', value) < now + lifetime then
  keep(KEYS[1], struct.pack('<d', now + lifetime), lifetime)
end
"""
)

# KEYS: the returns. ARGV: the bucket's start, 'r' for a return or '', the oldest start that is kept, how long to keep all.
# A return counts where its bucket is still there; a bucket that is new makes the old ones go.
COUNT_RETURN = Script(
    """
local start, kind, oldest = ARGV[1], ARGV[2], tonumber(ARGV[3])
if kind == 'r' then
  if redis.call('HEXISTS', KEYS[1], start) == 1 then redis.call('HINCRBY', KEYS[1], start .. ' r', 1) end
elseif redis.call('HINCRBY', KEYS[1], start, 1) == 1 then
  for _, field in ipairs(redis.call('HKEYS', KEYS[1])) do
    local its_start = tonumber(string.match(field, '^%-?%d+'))
    if not its_start or its_start < oldest then redis.call('HDEL', KEYS[1], field) end
  end
  redis.call('EXPIRE', KEYS[1], ARGV[4])
end
"""
)
