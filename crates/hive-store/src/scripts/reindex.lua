#!lua flags=allow-oom
--[[
reindex: put an entry of a placeholder back into the index that it is missing from.

Why one script: the entry may have moved on since the auditor saw it.

KEYS
  1 lane     stream
  2 ready    zset
  3 delayed  zset
  4 parked   zset
  5 busy     hash    ordering key -> `<lane ref>|<id>` in flight
ARGV
  1 group      name
  2 ageing_ms  u53     as in fetch
  3 ref        ref     of the lane
  4 id         id      of the entry
RETURNS  { status, detail }
  SOUND     owner   a consumer's, or indexed; nothing was written
  REPAIRED  owner   it was this placeholder's and in no index; it is ready now, or parked where
                    its ordering key is another's
  ABSENT    ""      not pending
IDEMPOTENT  yes
COST        O(log n)
INVARIANTS  M4 (an entry has one owner and one index), M5 (one entry of an ordering key in flight)
]]
local lane, group, ageing, member = KEYS[1], ARGV[1], tonumber(ARGV[2]), ARGV[3] .. '|' .. ARGV[4]
local row = redis.call('XPENDING', lane, group, ARGV[4], ARGV[4], 1)[1]
if not row then return { 'ABSENT', '' } end
local owner = row[2]
if string.sub(owner, 1, 1) ~= '~' then return { 'SOUND', owner } end
if owner == '~taken' and row[3] < 60000 then return { 'SOUND', owner } end
if owner == '~ready' and redis.call('ZSCORE', KEYS[2], member) then return { 'SOUND', owner } end
if owner == '~delayed' and redis.call('ZSCORE', KEYS[3], member) then return { 'SOUND', owner } end
if string.find(ARGV[3], '/p%dm') then
  local entry = redis.call('XRANGE', lane, ARGV[4], ARGV[4])[1]
  local body = entry and entry[2][2]
  local ours = body and string.byte(body, 1) == 2
  local order = ours and struct.unpack('>Hc0', body, 23) or ''
  local holder = order ~= '' and redis.call('HGET', KEYS[5], order)
  local ms, seq = string.match(ARGV[4], '^(%d+)-(%d+)$')
  local age = string.gsub(string.format('%015s-%010s', ms, seq), ' ', '0')
  if holder and holder ~= member then
    local added = redis.call('ZADD', KEYS[4], 0, order .. '\0' .. age .. '\0' .. member)
    if owner == '~ordered' and added == 0 then return { 'SOUND', owner } end
    redis.call('XCLAIM', lane, group, '~ordered', 0, ARGV[4], 'JUSTID')
    return { 'REPAIRED', owner }
  end
  if order ~= '' then
    redis.call('HSET', KEYS[5], order, member)
    redis.call('ZREM', KEYS[4], order .. '\0' .. age .. '\0' .. member)
  end
end
local priority = tonumber(string.match(ARGV[3], '/p(%d)'))
local ms = tonumber(string.match(ARGV[4], '^%d+'))
local score = ms - priority * ageing
if ageing == 0 then score = (9 - priority) * 8796093022208 + ms end
redis.call('XCLAIM', lane, group, '~ready', 0, ARGV[4], 'JUSTID')
redis.call('ZADD', KEYS[2], score, member)
return { 'REPAIRED', owner }
