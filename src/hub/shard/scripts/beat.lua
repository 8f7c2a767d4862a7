-- ARGV: the attachment, the epoch, the last transaction and the last message that the shard knows.
local node, known, op, place = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
if not row(node) or epoch() ~= known then return { 'FENCED' } end
if tonumber(row(node)) < op or tonumber(redis.call('HGET', key('placed'), node)) < place then return { 'REWOUND' } end
local time = now()
note_outage(time)
redis.call('HSET', key('beats'), node, whole(time))
if time > number('quiet') then
  for _, other in ipairs(redis.call('HKEYS', key('beats'))) do
    if time > tonumber(redis.call('HGET', key('beats'), other)) + TTL then fence(other, time) end
  end
end
local dead, first = {}, node
for _, other in ipairs(redis.call('HKEYS', key('dead'))) do
  local at = tonumber(redis.call('HGET', key('dead'), other))
  if at <= time or at > time + TTL then dead[#dead + 1] = other end
end
for _, other in ipairs(redis.call('HKEYS', key('op'))) do
  if other < first then first = other end
end
return { 'TAKEN', (first == node) and 1 or 0, dead }
