#!lua flags=allow-oom
--[[
dataset_accept: make the data that is there the one that all daemons go on with.

Why one script: two operators who accept at once must not make two nonces, and what a daemon that
beats meanwhile knows must be among what is accepted.

KEYS
  1 nonce    string  `<current> <earlier...>`, or `lost <known...>`
  2 daemons  hash    `<daemon>/<instance>` -> `<ms> <advertise> <version> <epoch> <known nonce>`
ARGV
  1 fresh    text    nonce to store where none is left
  2 known    text    nonce that the caller knows, or `-`
  3 gone_ms  u53     silent for longer is gone
  4 now_ms   u53     0, or the time instead of Redis' own (tests)
RETURNS  { status, nonce }
  ACCEPTED  nonce  what the key holds now: what living daemons know is among the earlier ones
  SOUND     nonce  it was so before; nothing was written
IDEMPOTENT  yes: the second call answers SOUND
COST        O(daemons)
INVARIANTS  C3 (lost data is never gone on with by itself)
]]
local now = tonumber(ARGV[4])
if now == 0 then
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end
local stored, words, seen = redis.call('GET', KEYS[1]) or '', {}, {}
local function add(word)
  if word and word ~= '-' and not seen[word] then
    words[#words + 1] = word
    seen[word] = true
  end
end
for word in string.gmatch(stored, '%S+') do
  add(#words == 0 and word == 'lost' and ARGV[1] or word)
end
if #words == 0 then add(ARGV[1]) end
add(ARGV[2])
local rows = redis.call('HVALS', KEYS[2])
for _, row in ipairs(rows) do
  local beat, known = string.match(row, '^(%d+) %S* %S* %S* (%S+)$')
  if beat and now - tonumber(beat) <= tonumber(ARGV[3]) then add(known) end
end
-- The newest few: who was away for longer than that accepts again.
while #words > 32 do table.remove(words, 2) end
local nonce = table.concat(words, ' ')
if nonce == stored then return { 'SOUND', nonce } end
redis.call('SET', KEYS[1], nonce)
return { 'ACCEPTED', nonce }
