#!lua flags=allow-oom
-- Parts that the scripts share. They run on an engine without memory, too: most of them free some. KEYS[1] is the prefix of all keys. Texts without content stand for absent fields.
local prefix = KEYS[1]
local function key(name) return prefix .. name end
local function now()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end
-- An attachment NODE has fields NODE of op (its last transaction), beat (ms) and placed (messages in its inbox).
local function row(node) return redis.call('HGET', key('op'), node) end
local function epoch() return redis.call('HGET', key('meta'), 'epoch') or '' end
local function number(field) return tonumber(redis.call('HGET', key('meta'), field) or '0') end
local function set(field, value) redis.call('HSET', key('meta'), field, value) end
-- Numbers beyond 1e14 print with an exponent unless they are formatted.
local function whole(value) return string.format('%.0f', value) end

local TTL, INTERVAL, OUTAGE, QUIET, YOUNG = 10000, 2000, 3000, 15000, 3000

-- Notes a beat of any attachment. Time without beats counts as one interval: the engine or the whole machine was away.
local function note_outage(time)
  local beat = number('beat')
  local silence = beat > 0 and time - beat or 0
  if silence > OUTAGE then
    local uncounted = silence - INTERVAL
    for _, node in ipairs(redis.call('HKEYS', key('beats'))) do
      redis.call('HINCRBY', key('beats'), node, whole(uncounted))
    end
    set('since', whole(number('since') + uncounted))
  end
  if silence > TTL then set('quiet', whole(time + QUIET)) end
  set('beat', whole(time))
  -- The clock may have been set back.
  if number('quiet') > time + QUIET then set('quiet', whole(time + QUIET)) end
  if beat > time then
    for _, node in ipairs(redis.call('HKEYS', key('beats'))) do
      if tonumber(redis.call('HGET', key('beats'), node)) > time then
        redis.call('HSET', key('beats'), node, whole(time))
      end
    end
  end
end

-- Ends an attachment; its names may be given back from the time `at`.
local function fence(node, at)
  redis.call('HDEL', key('op'), node)
  redis.call('HDEL', key('beats'), node)
  redis.call('HDEL', key('placed'), node)
  redis.call('DEL', key('in:' .. node))
  if redis.call('EXISTS', key('s:' .. node)) == 1 then
    redis.call('HSET', key('dead'), node, whole(at))
  end
end
