-- Puts the model's name into x-ortmesh-model, by which the routes choose. Runs only on methods of the Open Inference
-- Protocol that have the name in field 1 of the request. As protobuf does, the last occurrence counts; other fields
-- are skipped by their length and never copied: tensors may be megabytes. A body that is not one whole message is
-- refused: a service would read its first message only, and a gRPC library waits for the rest of a cut one.
local byte, sub, min, find = string.byte, string.sub, math.min, string.find
local WINDOW = 256        -- bytes of the body that are looked at as one Lua string
local LONGEST_NAME = 256
local MOST_FIELDS = 4096  -- of one message; a caller that sends more is refused
local PREFIX = 5          -- bytes of gRPC's flag and length

-- Whether a body's first bytes announce one message that fills the rest of its `total` bytes.
local function is_one_message(window, total)
  if total < PREFIX then return false end
  local flag, a, b, c, d = byte(window, 1, PREFIX)
  return flag == 0 and ((a * 256 + b) * 256 + c) * 256 + d == total - PREFIX
end

-- The value of field 1 in a message of `total` bytes, or nil, and what is wrong with the message, or nil; `window` is
-- the body's beginning. What is no message at all is for the directory, which says so.
local function model_name(body, total, window)
  local at, name = PREFIX, nil
  local base, depth = 0, 0  -- of the window, and of groups, which protobuf skips as unknown fields

  local function varint()
    local value, scale = 0, 1
    for _ = 1, 10 do
      local i = at - base + 1
      if i < 1 or i > #window then
        if at >= total then return nil end
        base, window = at, body:getBytes(at, min(WINDOW, total - at))
        i = 1
      end
      local x = byte(window, i)
      at = at + 1
      if x < 128 then return value + x * scale end
      value = value + (x - 128) * scale
      scale = scale * 128
    end
  end

  for _ = 0, MOST_FIELDS do
    if at >= total then return name end
    local key = varint()
    if key == nil then return nil end
    local wire = key % 8
    if wire == 2 then
      local size = varint()
      if size == nil or at + size > total then return nil end
      if key == 10 and depth == 0 then
        if size > LONGEST_NAME then return nil end
        local i = at - base + 1
        if size == 0 then name = nil
        elseif i >= 1 and i + size - 1 <= #window then name = sub(window, i, i + size - 1)
        else name = body:getBytes(at, size) end
      end
      at = at + size
    elseif wire == 0 then
      if varint() == nil then return nil end
    elseif wire == 5 then at = at + 4
    elseif wire == 1 then at = at + 8
    elseif wire == 3 then depth = depth + 1
    elseif wire == 4 and depth > 0 then depth = depth - 1
    else return nil end
  end
  return nil, "the message has more than " .. MOST_FIELDS .. " fields"
end

function envoy_on_request(handle)
  local body = handle:body()
  local total = body ~= nil and body:length() or 0
  local window = total > 0 and body:getBytes(0, min(WINDOW, total)) or ""
  local name, problem = nil, "the body is not one whole message"
  if is_one_message(window, total) then name, problem = model_name(body, total, window) end
  if problem ~= nil then
    handle:respond({[":status"] = "400"}, problem)
    return
  end
  if name ~= nil and find(name, "^[%w%._%-@/]+$") then handle:headers():add("x-ortmesh-model", name) end
  handle:clearRouteCache()
end
