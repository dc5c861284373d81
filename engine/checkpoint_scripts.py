"""What runs inside Redis for the checkpoint of one partition; `checkpoint_redis.py` describes its keys.

Counts of the keys that cannot be made again stand in the partition's `:meta`, whose loss ends the log. Each
script compares them before it does anything, and notes them again after it changed something. One that finds
fewer says `gone` and the name of what is missing.
"""

from __future__ import annotations

from engine.log.redis_scripts import READING, script

_COUNTED = """
local names = {'states', 'due', 'stores', 'kept', 'memory', 'parked', 'reruns', 'tasks'}
local counts = {'HLEN', 'ZCARD', 'SCARD', 'ZCARD', 'HLEN', 'HLEN', 'SCARD', 'HLEN'}
local function fewer(meta, tag)
  for n, noted in ipairs(redis.call('HMGET', meta, unpack(names))) do
    if noted and redis.call(counts[n], tag .. ':' .. names[n]) < tonumber(noted) then
      return {'gone', names[n]}
    end
  end
end
local function lacking(meta, tag)
  if redis.call('HEXISTS', meta, 'epoch') == 0 then return {'gone', 'meta'} end
  return fewer(meta, tag)
end
local function forgets(tag, stream)
  local known = tonumber(redis.call('HGET', tag .. ':memory', stream) or 0)
  if redis.call('HLEN', tag .. ':known:' .. stream) < known then return {'gone', 'known:' .. stream} end
end
local function note(meta, tag)
  for n, name in ipairs(names) do
    redis.call('HSET', meta, name, redis.call(counts[n], tag .. ':' .. name))
  end
end
"""

_GUARD = (
    _COUNTED
    + """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return {'lost', 'lease'} end
local m = redis.call('HMGET', KEYS[2], 'epoch', 'head', 'last')
if m[1] ~= ARGV[2] then return {'lost', 'epoch'} end
local there = m[3]
if ARGV[3] ~= m[2] then
  local found = redis.call('XRANGE', KEYS[3], ARGV[3] .. '-0', ARGV[3] .. '-0')
  there = found[1] and found[1][2][2]
end
if there ~= ARGV[4] then return {'lost', 'records'} end
local gone = lacking(KEYS[2], ARGV[5])
if gone then return gone end
"""
)
"""KEYS: lease, meta, log. ARGV: who believes to hold it, the epoch, position and id of the last record that
this node knows to be there, the tag.
"""

SAVE = script(
    _GUARD
    + """
local tag, states = ARGV[5], tonumber(ARGV[6])
for n = 7, 6 + 4 * states, 4 do
  gone = gone or forgets(tag, ARGV[n])
end
if gone then return gone end
for n = 7, 6 + 4 * states, 4 do
  local name, version, due = ARGV[n], tonumber(ARGV[n + 1]), ARGV[n + 2]
  local old = string.match(redis.call('HGET', tag .. ':states', name) or '', '^(%d+)')
  if not old or tonumber(old) <= version then
    redis.call('HSET', tag .. ':states', name, version .. '\\n' .. ARGV[n + 3])
    if due == '' then
      redis.call('ZREM', tag .. ':due', name)
    else
      redis.call('ZADD', tag .. ':due', due, name)
    end
    if string.sub(name, 1, 6) == 'store:' then redis.call('SADD', tag .. ':stores', name) end
  end
end
for n = 7 + 4 * states, #ARGV, 5 do
  local stream, key = ARGV[n], ARGV[n + 1]
  local fresh = redis.call('HSET', tag .. ':known:' .. stream, key, ARGV[n + 2] .. ' ' .. ARGV[n + 3])
  redis.call('HINCRBY', tag .. ':memory', stream, fresh)
  redis.call('HSET', tag .. ':answers:' .. stream, key, ARGV[n + 4])
  redis.call('ZADD', tag .. ':kept', ARGV[n + 2], stream .. '\\n' .. key)
end
note(KEYS[2], tag)
return {'ok'}
"""
)
"""ARGV: the tag, how many states; for each state stream, version, deadline (or nothing) and bytes;
for each answer stream, key, at_ms, digest and bytes.
"""

FINISH = script(
    _GUARD
    + """
local tag, position = ARGV[5], tonumber(ARGV[6])
local at = redis.call('HMGET', tag .. ':check', 'position', 'epoch')
if at[2] == ARGV[2] and tonumber(at[1]) > position then return {'lost', 'position'} end
local check = tag .. ':check'
redis.call('HSET', check, 'position', position, 'floor', ARGV[7], 'refill', ARGV[8], 'epoch', ARGV[2])
local places = {}
for n = 10, #ARGV, 2 do
  redis.call('HSET', tag .. ':positions', ARGV[n], ARGV[n + 1])
  places[ARGV[n]] = tonumber(ARGV[n + 1])
end
for _, field in ipairs(redis.call('HKEYS', tag .. ':attempts')) do
  local name, place = string.match(field, '^(.*)\\n(%d+)$')
  if places[name] and tonumber(place) <= places[name] then redis.call('HDEL', tag .. ':attempts', field) end
end
for _, one in ipairs(redis.call('SMEMBERS', tag .. ':reruns')) do
  local name, high = string.match(one, '^(.*)\\n%d+\\n(%d+)$')
  if places[name] and tonumber(high) <= places[name] then redis.call('SREM', tag .. ':reruns', one) end
end
local old = redis.call('ZRANGEBYSCORE', tag .. ':kept', '-inf', '(' .. ARGV[9], 'LIMIT', 0, 1000)
for _, one in ipairs(old) do
  local name, key = string.match(one, '^([^\\n]*)\\n(.*)$')
  local less = redis.call('HDEL', tag .. ':known:' .. name, key)
  redis.call('HDEL', tag .. ':answers:' .. name, key)
  redis.call('ZREM', tag .. ':kept', one)
  if redis.call('HINCRBY', tag .. ':memory', name, -less) <= 0 then
    redis.call('HDEL', tag .. ':memory', name)
  end
end
note(KEYS[2], tag)
return {'ok'}
"""
)
"""ARGV: the tag, position, floor, refill, horizon, then each reaction and its position."""

_WHOLE = (
    _COUNTED
    + """
local tag = ARGV[1]
local gone = lacking(KEYS[1], tag)
if gone then return gone end
"""
)
"""KEYS: meta. ARGV: the tag, then what the script needs."""

READ = script(_WHOLE + "return {'ok', redis.call(unpack(ARGV, 2))}", "no-writes")
"""ARGV: a command that reads."""

CHANGE = script(_WHOLE + "redis.call(unpack(ARGV, 2)) note(KEYS[1], tag) return {'ok'}")
"""ARGV: a command that writes."""

KNOWN = script(
    _WHOLE
    + """
return forgets(tag, ARGV[2]) or {'ok', redis.call('HGETALL', tag .. ':known:' .. ARGV[2])}
""",
    "no-writes",
)
"""ARGV: a stream."""

LOAD = script(
    READING
    + _COUNTED
    + """
local tag, stream = ARGV[1], ARGV[2]
local gone = fewer(KEYS[1], tag) or forgets(tag, stream)
if gone then return gone end
local v, low, last = head_of(stream, KEYS[4])
if not v then return {'gone', stream} end
local line = redis.call('HGET', tag .. ':states', stream)
local saved = line and tonumber(string.match(line, '^%d+')) or 0
local after = saved > v and 0 or saved - tonumber(ARGV[3])
local found = read(KEYS[4], math.max(after, low - 1), low, v, tonumber(ARGV[4]))
if not found then return {'gone', 'log'} end
return {'ok', line, line and redis.call('HGETALL', tag .. ':known:' .. stream) or {}, v, last, found}
""",
    "no-writes",
)
"""All that is kept of a stream, at one moment. KEYS: as `READ_STREAM` of the log. ARGV: the tag, the stream,
how many versions behind the state to begin, bytes of records. Returns `ok`, the state's line (or nothing),
the known keys and what is known, and the rest as `READ_STREAM`.
"""

COUNTED = script(_COUNTED + "return fewer(KEYS[1], ARGV[1]) or {'ok'}", "no-writes")
"""See that nothing is missing, also where the log was moved away. KEYS: meta. ARGV: the tag."""

NOTE = script(_COUNTED + "note(KEYS[1], ARGV[1]) return {'ok'}")
"""Note what there is, after it was filled from elsewhere. KEYS: meta. ARGV: the tag."""

PARK = script(
    _WHOLE
    + """
local parked, parking = tag .. ':parked', tag .. ':parking'
local id = redis.call('HGET', parking, ARGV[2])
if not id or redis.call('HEXISTS', parked, id) == 0 then
  repeat
    id = redis.call('HINCRBY', tag .. ':check', 'ids', 1) * tonumber(ARGV[4]) + tonumber(ARGV[5])
  until redis.call('HEXISTS', parked, id) == 0
  redis.call('HSET', parked, id, ARGV[3])
  redis.call('HSET', parking, ARGV[2], id)
  note(KEYS[1], tag)
end
return {'ok', tonumber(id), redis.call('HGET', parked, id)}
"""
)
"""ARGV: `reaction\\nposition`, the record, and what makes ids of partitions differ. Once per reaction and
position while it is parked.
"""

ADD_TASK = script(
    _WHOLE
    + """
local tasks = tag .. ':tasks'
for n = 4, #ARGV do
  if redis.call('HGET', tasks, ARGV[n]) == ARGV[3] then redis.call('HDEL', tasks, ARGV[n]) end
end
if ARGV[2] ~= '' then redis.call('HSETNX', tasks, ARGV[2], ARGV[3]) end
note(KEYS[1], tag)
return {'ok'}
"""
)
"""ARGV: task, user, tasks that are this user's no more."""
