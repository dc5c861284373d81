"""What runs inside Redis: the scripts, and the keys of a partition. Everything that is written goes through
them, so each change is whole, in one slot, and checked against what is there.

Keys of partition p, all with the hash tag `{onda:p}`:

    :meta          hash: epoch, head (position of the last record), first (of the oldest kept), last (id of
                   the record at head), streams (how many there are), run (of the server that was met last),
                   partitions, format
    :log           stream of records `<position>-0`: i (id of the event), p (id of the record before it, also
                   across streams: a chain), r (the entry, as `frames.pack_entry` packs it)
    :heads         hash: stream -> `version low id`: last version, oldest version that is kept, last id
    :at:<stream>   list of positions: element n is that of version low + n
    :epochs        list of `epoch position`: after which position each epoch began
    :waits:<stream>  names, each with a space behind it: who is to append to the stream before others do, the
                   one that waits longest first. A hint that expires; nothing counts it

Counts that must agree (records in `:log`, fields in `:heads`, length of `:at:`) are compared by each append
and each read of a stream: they take constant time, and a key that was deleted or evicted is found before
anything is decided on what is left. A script says so by `gone` and the name of what is missing.

A message on the partition's channel is one append: `epoch position previous\\n`, then for each record its
id, a line feed, and the entry. Scripts need Redis 7 (`#!lua` flags): what cannot be written (no memory, a
replica, too few replicas, a disk that failed) is refused before the script begins.
"""

from __future__ import annotations

from hashlib import sha1
from typing import NamedTuple

from engine.log import WAITS_S

FORMAT = 2
"""How the log is laid out. 1: a shop's tables were in other partitions than the shop."""

MOVING = "moving"
MOVED = "moved"
"""In place of the number of partitions, and without an epoch in `:meta`: the log is being filled by a move,
or was moved away. No script touches such a partition, no node opens it (`engine/migrating/shared.py`).
"""


class Script(NamedTuple):
    """A script and the name under which Redis keeps it."""

    text: str
    sha: str


def script(text: str, flags: str = "") -> Script:
    """Return a script that Redis runs; `flags` as its manual has them."""
    whole = f"#!lua{' flags=' + flags if flags else ''}\n{text}"
    return Script(whole, sha1(whole.encode(), usedforsecurity=False).hexdigest())


class Keys(NamedTuple):
    """The names of a partition's keys and channel."""

    meta: str
    log: str
    heads: str
    epochs: str
    channel: str
    at: str
    waits: str
    """What the name of a stream is put behind, as with `at`."""

    @classmethod
    def of(cls, partition: int) -> Keys:
        tag = f"{{onda:{partition}}}"
        return cls(*(f"{tag}:{name}" for name in ("meta", "log", "heads", "epochs", "live", "at:", "waits:")))


_CHECKED = """
local m = redis.call('HMGET', KEYS[1], 'epoch', 'head', 'first', 'last', 'streams')
if not m[1] then return {'gone', 'meta'} end
local head, first = tonumber(m[2]), tonumber(m[3])
if redis.call('XLEN', KEYS[2]) ~= head - first + 1 then return {'gone', 'log'} end
if redis.call('HLEN', KEYS[3]) ~= tonumber(m[5]) then return {'gone', 'heads'} end
local function head_of(name, at)
  local line = redis.call('HGET', KEYS[3], name)
  local v, low, id = 0, 1, ''
  if line then
    v, low, id = string.match(line, '^(%d+) (%d+) (.*)$')
    v, low = tonumber(v), tonumber(low)
  end
  if redis.call('LLEN', at) ~= v - low + 1 then return nil end
  return v, low, id
end
local function record(position)
  local id = position .. '-0'
  local found = redis.call('XRANGE', KEYS[2], id, id)
  if not found[1] then return nil end
  local f = found[1][2]
  return f[2], f[6]
end
"""
"""KEYS: meta, log, heads. `record` returns id and entry."""

_WAITS = f"""
local function place(waits, who)
  local at, after = string.find(' ' .. waits, ' ' .. who .. ' ', 1, true)
  return at and after
end
local function wait(key, waits, who)
  if not place(waits, who) then waits = waits .. who .. ' ' end
  redis.call('SET', key, waits, 'PX', {int(WAITS_S * 1000)})
end
local function waiting_after(key, who, more)
  local waits = redis.call('GET', key)
  if not waits then return 0 end
  local after = place(waits, who)
  if after then waits = string.sub(waits, after) end
  if waits == '' then
    redis.call('DEL', key)
    return 0
  end
  if more then wait(key, waits, who) else redis.call('SET', key, waits, 'KEEPTTL') end
  local _, count = string.gsub(waits, ' ', '')
  return count
end
"""
"""`wait` adds who was too late. `waiting_after` takes out who has appended, and all that were before it, as
they have had their time; those that are left are to go first, and then it again, when it has `more`.
"""

APPEND = script(
    _CHECKED
    + _WAITS
    + """
local n = tonumber(ARGV[4])
local who, waits = ARGV[5], KEYS[4 + n]
local entries = 7 + 3 * n
local v, low, last = {}, {}, {}
local moved = m[1] ~= ARGV[1] and 1 or nil
for s = 1, n do
  local a = 4 + 3 * s
  v[s], low[s], last[s] = head_of(ARGV[a], KEYS[3 + s])
  if not v[s] then return {'gone', ARGV[a]} end
  if v[s] ~= tonumber(ARGV[a + 1]) or (ARGV[a + 2] ~= '*' and ARGV[a + 2] ~= last[s]) then
    moved = moved or s
  end
end
local function at(s, version)
  if version < low[s] or version > v[s] then return nil end
  return redis.call('LINDEX', KEYS[3 + s], version - low[s])
end
if moved then
  local next, position = {}, nil
  for s = 1, n do next[s] = tonumber(ARGV[5 + 3 * s]) end
  for e = entries, #ARGV, 3 do
    local s = tonumber(ARGV[e])
    next[s] = next[s] + 1
    position = at(s, next[s])
    if not position or record(position) ~= ARGV[e + 1] then position = nil break end
  end
  if position then return {'same', tonumber(position)} end
  if m[1] ~= ARGV[1] then return {'epoch', m[1]} end
  if waits then wait(waits, redis.call('GET', waits) or '', who) end
  local version = tonumber(ARGV[5 + 3 * moved])
  local there = at(moved, version)
  there = there and record(there) or (version == v[moved] and last[moved]) or ''
  return {'conflict', moved, v[moved], last[moved], there}
end
local prev, parts = m[4], {}
for e = entries, #ARGV, 3 do
  local s, id = tonumber(ARGV[e]), ARGV[e + 1]
  head = head + 1
  redis.call('XADD', KEYS[2], head .. '-0', 'i', id, 'p', prev, 'r', ARGV[e + 2])
  redis.call('RPUSH', KEYS[3 + s], head)
  v[s], last[s], prev = v[s] + 1, id, id
  parts[#parts + 1] = id .. '\\n' .. ARGV[e + 2]
end
local fresh = 0
for s = 1, n do
  fresh = fresh + redis.call('HSET', KEYS[3], ARGV[4 + 3 * s], v[s] .. ' ' .. low[s] .. ' ' .. last[s])
end
redis.call('HSET', KEYS[1], 'head', head, 'last', prev, 'streams', tonumber(m[5]) + fresh)
local line = m[1] .. ' ' .. (head - #parts + 1) .. ' ' .. m[4] .. '\\n'
redis.call(ARGV[2], ARGV[3], line .. table.concat(parts))
return {'ok', head, m[4], waits and waiting_after(waits, who, ARGV[6] == '1') or 0}
"""
)
"""KEYS: meta, log, heads, `:at:` of each stream; the `:waits:` of one for which turns are taken. ARGV: epoch,
PUBLISH or SPUBLISH, channel, number of streams, who takes turns, `1` when it has more to append; for each
stream its name, and version and id (`*`: any) that the append was decided on; for each entry the number of
its stream, its id and its bytes.

Returns `ok`, the last position, the id of the record before the first one, and how many are to go before the
next append (`engine.log.Turns`); or `same` and the last position; or `epoch` and the one that holds; or
`conflict`: which stream, its version and id, and the id at the version that was expected (empty: not there,
or not kept). Nothing is written unless it is `ok`, but for who waits on a conflict.
"""

MEET = script(
    """
local m = redis.call('HMGET', KEYS[1], 'epoch', 'head', 'first', 'last', 'streams', 'run', 'partitions',
  'format')
if m[7] and m[7] ~= ARGV[5] then return {'partitions', m[7]} end
if m[7] and m[8] ~= ARGV[6] then return {'format', m[8]} end
if not m[1] then
  if ARGV[4] ~= '1' or redis.call('EXISTS', KEYS[2], KEYS[3], KEYS[4]) > 0 then return {'gone', 'meta'} end
  redis.call('HSET', KEYS[1], 'epoch', ARGV[2], 'head', 0, 'first', 1, 'last', '', 'streams', 0,
    'run', ARGV[1], 'partitions', ARGV[5], 'format', ARGV[6])
  redis.call('RPUSH', KEYS[4], ARGV[2] .. ' 0')
  return {'ok', ARGV[2], 0, 1, ''}
end
if redis.call('XLEN', KEYS[2]) ~= m[2] - m[3] + 1 then return {'gone', 'log'} end
if redis.call('HLEN', KEYS[3]) ~= tonumber(m[5]) then return {'gone', 'heads'} end
if m[6] ~= ARGV[1] then
  if ARGV[3] ~= '1' then
    m[1] = ARGV[2]
    redis.call('HSET', KEYS[1], 'epoch', m[1])
    redis.call('RPUSH', KEYS[4], m[1] .. ' ' .. m[2])
  end
  redis.call('HSET', KEYS[1], 'run', ARGV[1])
end
return {'ok', m[1], tonumber(m[2]), tonumber(m[3]), m[4]}
""",
    "allow-oom",
)
"""Meet a server. KEYS: meta, log, heads, epochs. ARGV: its run, an epoch in case one has to begin, `1` when
this run cannot have lost anything, `1` to make the partition, partitions, format. Returns `ok`, epoch, head,
first, last.
"""

FORK = script(
    """
local m = redis.call('HMGET', KEYS[1], 'epoch', 'head', 'first', 'last')
if not m[1] then return {'gone', 'meta'} end
local head, position = tonumber(m[2]), tonumber(ARGV[3])
local forked
if m[1] == ARGV[1] then
  forked = head < position or (head == position and m[4] ~= ARGV[4])
  if not forked and position < head and position >= tonumber(m[3]) then
    local found = redis.call('XRANGE', KEYS[2], position .. '-0', position .. '-0')
    forked = not found[1] or found[1][2][2] ~= ARGV[4]
  end
else
  forked = true
  for _, line in ipairs(redis.call('LRANGE', KEYS[3], 0, -1)) do
    if string.match(line, '^%S+') == ARGV[1] then forked = false end
  end
  if forked then redis.call('RPUSH', KEYS[3], ARGV[1] .. ' ' .. head) end
end
if forked then
  m[1] = ARGV[2]
  redis.call('HSET', KEYS[1], 'epoch', m[1], 'run', ARGV[5])
  redis.call('RPUSH', KEYS[3], m[1] .. ' ' .. math.min(head, position))
end
return {'ok', m[1], head, tonumber(m[3]), m[4]}
""",
    "allow-oom",
)
"""Begin a new epoch if the witness is right. KEYS: meta, log, epochs. ARGV: the epoch of the witness, the new
one, position and id of a record that was seen, run of the server. Returns as `MEET`.

A witness of an epoch that is over was told when that ended. An epoch that was never here was lost with its
beginning: Redis went back to an older one, whose cursors must not be good again.
"""

READ = script(
    """
local found = redis.call('XRANGE', KEYS[2], ARGV[1], '+', 'COUNT', ARGV[2])
return {found, redis.call('HMGET', KEYS[1], 'epoch', 'head', 'first', 'last')}
""",
    "no-writes",
)
"""KEYS: meta, log. ARGV: the id to begin with, how many records. Returns them, and what holds after them: an
append in between would look like a hole. Not MULTI, which Redis refuses while memory is full.
"""

READING = (
    _CHECKED
    + """
local function read(at, after, low, v, bytes)
  local size, found = 0, {}
  while after < v and size < bytes do
    for _, position in ipairs(redis.call('LRANGE', at, after + 1 - low, after + 64 - low)) do
      local _, entry = record(position)
      if not entry then return nil end
      found[#found + 1] = tonumber(position)
      found[#found + 1] = entry
      after, size = after + 1, size + #entry
      if size >= bytes then break end
    end
  end
  return found
end
"""
)
"""KEYS: as above. `read` returns position and entry of each record of a stream in turn."""

READ_STREAM = script(
    READING
    + """
local v, low, last = head_of(ARGV[1], KEYS[4])
if not v then return {'gone', ARGV[1]} end
local after = tonumber(ARGV[2])
if after > v then return {'ahead', v, last} end
if ARGV[4] == '1' then after = math.max(after, low - 1) end
if after + 1 < low then return {'expired', v, last} end
local found = read(KEYS[4], after, low, v, tonumber(ARGV[3]))
return found and {'ok', v, last, found} or {'gone', 'log'}
""",
    "no-writes",
)
"""KEYS: meta, log, heads, `:at:` of the stream. ARGV: stream, version to read after, bytes, `1` to begin with
the oldest one that is kept when those are gone. Returns `ok`, version and id of its head, and position and
entry of each record in turn.
"""

TRIM = script(
    _CHECKED
    + """
local upto = math.min(tonumber(ARGV[1]), head)
if first > upto then return {'ok', first} end
local there = ARGV[5] == m[2] and m[4] or record(ARGV[5])
if m[1] ~= ARGV[4] or there ~= ARGV[6] then return {'lost', first} end
local found = redis.call('XRANGE', KEYS[2], first .. '-0', upto .. '-0', 'COUNT', ARGV[2])
local counts = {}
for _, one in ipairs(found) do
  local entry = one[2][6]
  local bytes = struct.unpack('<H', entry, 17)
  local name = string.sub(entry, 19, 18 + bytes)
  counts[name] = (counts[name] or 0) + 1
end
for name, count in pairs(counts) do
  local v, low, id = head_of(name, ARGV[3] .. name)
  if not v then return {'gone', name} end
  redis.call('LPOP', ARGV[3] .. name, count)
  redis.call('HSET', KEYS[3], name, v .. ' ' .. (low + count) .. ' ' .. id)
end
first = first + #found
redis.call('XTRIM', KEYS[2], 'MINID', first .. '-0')
redis.call('HSET', KEYS[1], 'first', first)
return {'ok', first}
""",
    "allow-oom",
)
"""KEYS: meta, log, heads. ARGV: position up to which records may go, how many at most, the prefix of `:at:`
(which streams are in it is only known inside; they share the slot), the epoch, position and id of the last
record that is known to be there. Returns `ok` and `first`; `lost` when that record is not there: then what
may go was decided on another log than this.
"""
