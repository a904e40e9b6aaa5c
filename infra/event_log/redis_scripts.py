"""What the log on Redis Streams must do in one step: the Lua scripts of `redis_streams.py`."""

BEGIN = """
-- Make the topic, and have each stream that ends before its fence go on above it. Returns whether it could.
-- KEYS: number of partitions, then the streams. ARGV: number of partitions, how far above, then the fences.
local has = redis.call('GET', KEYS[1])
if has and has ~= ARGV[1] then return 0 end
local landed = 0
for i = 3, #ARGV do landed = math.max(landed, tonumber(ARGV[i])) end
for i = 2, #KEYS do
  local last, fence = 0, tonumber(ARGV[i + 1])
  local exists = redis.call('EXISTS', KEYS[i]) == 1
  if exists then
    local stream = redis.call('XINFO', 'STREAM', KEYS[i])
    for j = 1, #stream, 2 do
      if stream[j] == 'last-generated-id' then last = tonumber(string.match(stream[j + 1], '%-(%d+)$')) end
    end
  end
  if last < fence or (landed > 0 and not has) then
    local id = string.format('0-%.0f', math.max(last, fence) + ARGV[2])
    if exists then
      redis.call('XSETID', KEYS[i], id)
    else
      redis.call('XADD', KEYS[i], id, 'k', '')
      redis.call('XDEL', KEYS[i], id)
    end
  end
end
redis.call('SET', KEYS[1], ARGV[1])
return 1
"""

APPEND = """
-- Append records if every guarding key still has its value. Returns the entries' ids; nothing: a guard has another
-- value; 0: the topic is not there, so nobody has said where it goes on.
-- KEYS: number of partitions, guards, a stream for each record. ARGV: number of guards, their values, then key and
-- value of each record.
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
table.remove(KEYS, 1)
local guards = tonumber(ARGV[1])
for i = 1, guards do
  if redis.call('GET', KEYS[i]) ~= ARGV[i + 1] then return false end
end
local ids = {}
for i = 1, #KEYS - guards do
  local at = 2 * i + guards
  ids[i] = redis.call('XADD', KEYS[guards + i], '0-*', 'k', ARGV[at], 'v', ARGV[at + 1])
end
return ids
"""

SHARE = """
-- Tell that a member lives, and deal the partitions. Returns those it keeps and those it has newly.
-- KEYS: members, owners. ARGV: member, lease in ms, number of partitions.
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now - ARGV[2]))
local members = redis.call('ZRANGE', KEYS[1], 0, -1)
table.sort(members)
local kept, gained = {}, {}
for partition = 0, ARGV[3] - 1 do
  local held = redis.call('HGET', KEYS[2], partition)
  local deadline, owner = string.match(held or '0 ', '^(%d+) (.*)$')
  if members[partition % #members + 1] == ARGV[1] then
    if owner == ARGV[1] or tonumber(deadline) < now then
      redis.call('HSET', KEYS[2], partition, string.format('%.0f %s', now + ARGV[2], ARGV[1]))
      table.insert(owner == ARGV[1] and kept or gained, partition)
    end
  elseif owner == ARGV[1] then
    redis.call('HDEL', KEYS[2], partition)
  end
end
return {kept, gained}
"""

COMMIT = """
-- Keep a group's offsets, if every partition is still the member's: late is no harm while nobody else took it.
-- KEYS: owners, offsets. ARGV: member, then partition and offset by turns.
for i = 2, #ARGV, 2 do
  local held = redis.call('HGET', KEYS[1], ARGV[i])
  if not held or string.match(held, ' (.*)$') ~= ARGV[1] then return 0 end
end
for i = 2, #ARGV, 2 do redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1]) end
return 1
"""

LEAVE = """
-- Leave the group and free what was owned.
-- KEYS: members, owners. ARGV: member.
redis.call('ZREM', KEYS[1], ARGV[1])
local owners = redis.call('HGETALL', KEYS[2])
for i = 1, #owners, 2 do
  if string.match(owners[i + 1], ' (.*)$') == ARGV[1] then redis.call('HDEL', KEYS[2], owners[i]) end
end
"""

COPY_PAGE = """
-- Copy a page of a stream without one key's records; at the end, put the copy in the stream's place.
-- KEYS: stream, copy, lock. ARGV: token, lock in ms, id to start at, page length, key, last offset to forget.
-- Returns the number left out (-1: the lock was lost) and the id to go on at ('+': done).
if redis.call('GET', KEYS[3]) ~= ARGV[1] then return {-1, ''} end
redis.call('PEXPIRE', KEYS[3], ARGV[2])
local entries = redis.call('XRANGE', KEYS[1], ARGV[3], '+', 'COUNT', ARGV[4])
local removed = 0
for _, entry in ipairs(entries) do
  local offset = tonumber(string.match(entry[1], '%-(%d+)$')) - 1
  if entry[2][2] == ARGV[5] and offset <= tonumber(ARGV[6]) then
    removed = removed + 1
  else
    redis.call('XADD', KEYS[2], entry[1], unpack(entry[2]))
  end
end
if #entries == tonumber(ARGV[4]) then return {removed, '(' .. entries[#entries][1]} end
if redis.call('EXISTS', KEYS[1]) == 1 then
  local stream = redis.call('XINFO', 'STREAM', KEYS[1])
  local last
  for i = 1, #stream, 2 do if stream[i] == 'last-generated-id' then last = stream[i + 1] end end
  if redis.call('EXISTS', KEYS[2]) == 0 and last ~= '0-0' then
    redis.call('XADD', KEYS[2], last, 'k', '')
    redis.call('XDEL', KEYS[2], last)
  end
  redis.call('XSETID', KEYS[2], last)
  redis.call('RENAME', KEYS[2], KEYS[1])
end
redis.call('DEL', KEYS[3])
return {removed, '+'}
"""
