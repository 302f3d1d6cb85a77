"""The scripts that count in Redis, each in one step on one node: mailward.policy.ratelimit, line by line.

Keys and values are those of mailward.adapters.redis_counter_keys. Numbers come and go packed, since one that leaves a script
loses its fraction, and one that becomes a text its last digits; nothing is made part of a script.
"""

from __future__ import annotations

from mailward.adapters.redis_counter_lua import COMMON
from mailward.adapters.redis_servers import Script

# KEYS: the hashes and sorted sets of the charges' owners, and last the queue ids where one is to be noted. ARGV: time or '', a
# queue id or '', and for each charge its field, its numbers, its item. Returns whether all was charged, the time, and for each
# charge whether it is over or its item known, when it clears, and the windows' totals.
CHARGE = Script(
    COMMON
    + """
local now = time_of(ARGV[1])

local function in_window(ring, window)
  local newest, kept = math.floor(now / window.width), {}
  local last = ring[#ring - 1]
  local is_ahead, ahead = last and last > newest, 0
  for place = 1, #ring, 2 do
    if is_ahead and ring[place] >= newest then
      ahead = ahead + ring[place + 1]
    elseif ring[place] >= newest - BUCKETS then
      kept[#kept + 1] = ring[place]
      kept[#kept + 1] = ring[place + 1]
    end
  end
  if is_ahead then
    kept[#kept + 1] = newest
    kept[#kept + 1] = ahead
  end
  return kept, is_ahead
end
local function add(ring, window, cost)
  local newest = math.floor(now / window.width)
  if ring[#ring - 1] == newest then
    ring[#ring] = math.min(ring[#ring] + cost, MAX_AMOUNT)
  else
    ring[#ring + 1] = newest
    ring[#ring + 1] = math.min(cost, MAX_AMOUNT)
  end
end
local function leaves_at(bucket, window)
  return (bucket + BUCKETS + 1) * window.width
end
local function clears_at(ring, window, excess)
  local freed = 0
  for place = 1, #ring, 2 do
    freed = freed + ring[place + 1]
    if freed >= excess then return leaves_at(ring[place], window) end
  end
  return math.huge
end
-- Each returns totals, whether it is over, when it clears, whether the item is known, what changes if all is charged, and what
-- changes even if not: a counter that is over, and was counted by a clock that was ahead.
local function charge_amount(one, cost)
  local value, before = read(KEYS[one.hash], one.field)
  local kept, rings, totals, is_over, clears_in, is_ahead = rings_of(value), {}, {}, false, 0, false
  for number, window in ipairs(one.windows) do
    local ring, was_ahead = in_window(kept[window.seconds] or {}, window)
    local total = 0
    for place = 2, #ring, 2 do total = total + ring[place] end
    rings[number], totals[number] = ring, total
    is_ahead = is_ahead or was_ahead
    if cost > 0 and total + cost > window.most then
      is_over = true
      clears_in = math.max(clears_in, clears_at(ring, window, total + cost - window.most) - now)
    end
  end
  local is_refused = is_over and one.force ~= FORCED
  if cost == 0 or (is_refused and not is_ahead) then return totals, is_over, clears_in end
  local expires = now
  for number, window in ipairs(one.windows) do
    local ring = rings[number]
    if not is_refused then
      add(ring, window, cost)
      totals[number] = totals[number] + cost
    end
    if #ring > 0 then expires = math.max(expires, leaves_at(ring[#ring - 1], window)) end
  end
  local change = {KEYS[one.hash], KEYS[one.index], one.field, packed(one.windows, rings), expires, before}
  if is_refused then return totals, is_over, clears_in, false, nil, change end
  return totals, is_over, clears_in, false, {change}
end
local function charge_first_time(one)
  local items, before = read(KEYS[one.items], one.items_field)
  if position(items, one.item) then return (charge_amount(one, 0)), false, 0, true end
  local totals, is_over, clears_in, _, changes, dated_back = charge_amount(one, one.cost)
  if not changes then return totals, is_over, clears_in, false, nil, dated_back end
  local added = string.sub(items .. one.item, -MAX_ITEMS * ITEM_OCTETS)
  if #one.windows == 0 then changes = {} end
  local key, index = KEYS[one.items], KEYS[one.items_index]
  changes[#changes + 1] = {key, index, one.items_field, added, now + KNOWN_SECONDS, before}
  return totals, is_over, clears_in, false, changes
end
local function charge_distinct(one)
  local second, longest, last_seen, is_ahead = math.ceil(now), 0, nil, false
  for _, window in ipairs(one.windows) do longest = math.max(longest, window.seconds) end
  local items, seconds, times = {}, {}, {}
  local value, before = read(KEYS[one.hash], one.field)
  local all_items, all_seconds = entries_of(value)
  for place, item in ipairs(all_items) do
    local at = all_seconds[place]
    is_ahead = is_ahead or at > second
    if at > now - longest then
      items[#items + 1], seconds[#seconds + 1], times[#times + 1] = item, math.min(at, second), math.min(at, second)
      if item == one.item then last_seen = math.min(at, second) end
    end
  end
  table.sort(times)
  local totals, is_new_in, is_over, clears_in = {}, {}, false, 0
  for number, window in ipairs(one.windows) do
    local first = 0
    while first < #times and times[first + 1] <= now - window.seconds do first = first + 1 end
    local total = #times - first
    totals[number] = total
    is_new_in[number] = not last_seen or last_seen <= now - window.seconds
    if one.cost > 0 and is_new_in[number] and total + 1 > window.most then
      is_over = true
      local leaves = window.most > 0 and times[first + total - window.most + 1] + window.seconds or math.huge
      clears_in = math.max(clears_in, leaves - now)
    end
  end
  local is_known, is_refused = last_seen ~= nil, is_over and one.force ~= FORCED
  if one.cost == 0 or (is_refused and not is_ahead) then return totals, is_over, clears_in, is_known end
  if not is_refused then
    for number, is_new in ipairs(is_new_in) do
      if is_new then totals[number] = totals[number] + 1 end
    end
    for place = #items, 1, -1 do
      if items[place] == one.item then
        table.remove(items, place)
        table.remove(seconds, place)
      end
    end
    items[#items + 1], seconds[#seconds + 1] = one.item, second
  end
  local kept = packed_entries(items, seconds)
  local change = {KEYS[one.hash], KEYS[one.index], one.field, kept, second + longest, before}
  if is_refused then return totals, is_over, clears_in, is_known, nil, change end
  return totals, is_over, clears_in, is_known, {change}
end
local function apply(change)
  put(change[1], change[2], change[3], change[4], change[5], change[6], now)
end

local is_charged, changed, said = true, {}, {}
for at = 3, #ARGV, 3 do
  local one = charge_at(at)
  local totals, is_over, clears_in, is_known, changes, dated_back
  if one.kind == DISTINCT then
    totals, is_over, clears_in, is_known, changes, dated_back = charge_distinct(one)
  elseif one.kind == FIRST_TIME then
    totals, is_over, clears_in, is_known, changes, dated_back = charge_first_time(one)
  else
    totals, is_over, clears_in, is_known, changes, dated_back = charge_amount(one, one.cost)
  end
  if is_over and one.force == ENFORCED then is_charged = false end
  if dated_back then apply(dated_back) end
  for _, change in ipairs(changes or {}) do changed[#changed + 1] = change end
  local flags = (is_over and 1 or 0) + (is_known and 2 or 0)
  said[#said + 1] = struct.pack('<Bd' .. string.rep('d', #totals), flags, clears_in, unpack(totals))
end
if is_charged then
  for _, change in ipairs(changed) do apply(change) end
  if ARGV[2] ~= '' then
    local key = KEYS[#KEYS]
    if redis.call('ZADD', key, exactly(now), ARGV[2]) == 1 and redis.call('ZCARD', key) % TRIMMED == 0 then
      redis.call('ZREMRANGEBYSCORE', key, '-inf', exactly(now - SENT_SECONDS))
      redis.call('ZREMRANGEBYRANK', key, '0', -MAX_SENT - 1)
    end
    keep_for(key, SENT_SECONDS)
  end
end
return struct.pack('<Bd', is_charged and 1 or 0, now) .. table.concat(said)
"""
)

# KEYS and ARGV as above, with the time at which it was charged, and only the charges that were. What is not there any more, or
# has been counted in another bucket since, stays.
GIVE_BACK = Script(
    COMMON
    + """
local now = time_of(ARGV[1])

local function give_back_amount(one)
  local value, expires = read(KEYS[one.hash], one.field)
  if not expires then return end
  local kept, rings, is_empty = rings_of(value), {}, true
  for number, window in ipairs(one.windows) do
    local ring, left, newest = kept[window.seconds] or {}, {}, math.floor(now / window.width)
    for place = 1, #ring, 2 do
      local amount = ring[place + 1]
      if ring[place] == newest then amount = amount - one.cost end
      if amount > 0 then
        left[#left + 1] = ring[place]
        left[#left + 1] = amount
      end
    end
    rings[number] = left
    is_empty = is_empty and #left == 0
  end
  if is_empty then
    remove(KEYS[one.hash], KEYS[one.index], one.field)
  else
    put(KEYS[one.hash], KEYS[one.index], one.field, packed(one.windows, rings), expires, expires, now)
  end
end
local function give_back_item(one)
  local items, expires = read(KEYS[one.items], one.items_field)
  local at = expires and position(items, one.item)
  if not at then return end
  local left = string.sub(items, 1, at - 1) .. string.sub(items, at + ITEM_OCTETS)
  if left == '' then
    remove(KEYS[one.items], KEYS[one.items_index], one.items_field)
  else
    put(KEYS[one.items], KEYS[one.items_index], one.items_field, left, expires, expires, now)
  end
end
local function give_back_distinct(one)
  local value, expires = read(KEYS[one.hash], one.field)
  if not expires then return end
  local items, seconds = entries_of(value)
  local kept_items, kept_seconds = {}, {}
  for place, item in ipairs(items) do
    if item ~= one.item or seconds[place] > math.ceil(now) then
      kept_items[#kept_items + 1] = item
      kept_seconds[#kept_seconds + 1] = seconds[place]
    end
  end
  if #kept_items == 0 then
    remove(KEYS[one.hash], KEYS[one.index], one.field)
  else
    local left = packed_entries(kept_items, kept_seconds)
    put(KEYS[one.hash], KEYS[one.index], one.field, left, expires, expires, now)
  end
end

for at = 3, #ARGV, 3 do
  local one = charge_at(at)
  if one.kind == DISTINCT then
    give_back_distinct(one)
  else
    give_back_amount(one)
    if one.kind == FIRST_TIME then give_back_item(one) end
  end
end
if ARGV[2] ~= '' then redis.call('ZREM', KEYS[#KEYS], ARGV[2]) end
"""
)

# KEYS: a hash, and its fields by time. ARGV: the time of a clock that is not Redis's, by which what has expired goes.
DROP_EXPIRED = Script(
    COMMON
    + """
local now, cursor = time_of(ARGV[1]), '0'
repeat
  local found = redis.call('HSCAN', KEYS[1], cursor, 'COUNT', '100')
  cursor = found[1]
  for place = 1, #found[2], 2 do
    local kept = found[2][place + 1]
    if #kept >= 8 and struct.unpack('<d', kept) <= now then remove(KEYS[1], KEYS[2], found[2][place]) end
  end
until cursor == '0'
"""
)
