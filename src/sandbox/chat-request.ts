import {
  type ModelRequest,
  type PromptMessage,
  type ResponseFormat,
  type Tool,
  type ToolChoice,
  plainMessage,
  plainRequest,
} from './request.ts'
import { type Body, Unusable, readCount, readList, readModel, readRecord, readTexts } from './request-fields.ts'
import { isRecord, stringOrNull } from './json.ts'

const ROLES = new Set(['system', 'developer', 'user', 'assistant', 'tool', 'function'])
/** OpenAI's limit. */
const MOST_CHOICES = 128
const WHOLE_CHOICES = ['auto', 'none', 'required'] as const

/** Reads the body of `POST /v1/chat/completions`. */
export function readChatRequest(body: Body): ModelRequest {
  const model = readModel(body)
  const { messages } = body
  if (!Array.isArray(messages)) throw new Unusable("Missing required parameter: 'messages'.", 'messages')
  if (messages.length === 0) throw new Unusable("Invalid 'messages': empty array.", 'messages')
  const choices = readCount(body, 'n') ?? 1
  if (choices > MOST_CHOICES) throw new Unusable(`Invalid 'n': expected at most ${MOST_CHOICES}.`, 'n')
  const streamOptions = body['stream_options']
  const tools = readList(body, 'tools').map(readTool)
  return {
    ...plainRequest,
    model,
    messages: messages.map(readMessage),
    choices,
    maxTokens: readCount(body, 'max_completion_tokens') ?? readCount(body, 'max_tokens'),
    isStream: body['stream'] === true,
    includesUsage: isRecord(streamOptions) && streamOptions['include_usage'] === true,
    format: readFormat(body['response_format']),
    tools,
    toolChoice: readToolChoice(body['tool_choice'], tools),
    ownTools: isRecord(body['web_search_options']) ? ['web_search'] : [],
    stop: readTexts(body['stop'], 'stop'),
    reasoning: body['reasoning_effort'] === 'none' ? 'none' : 'as set',
  }
}

function readMessage(value: unknown, index: number): PromptMessage {
  const param = `messages[${index}]`
  const message = readRecord(value, param)
  const role = stringOrNull(message['role'])
  if (role === null || !ROLES.has(role)) throw new Unusable(`Invalid value for '${param}.role'.`, `${param}.role`)
  const calls = readList(message, 'tool_calls')
  const hidden =
    calls.length === 0 ? '' : JSON.stringify(calls.map((call) => (isRecord(call) ? call['function'] : null)))
  return { ...plainMessage, role, hidden, ...readContent(message['content'], `${param}.content`) }
}

function readContent(content: unknown, param: string): Pick<PromptMessage, 'text' | 'images'> {
  if (typeof content === 'string') return { text: content, images: 0 }
  if (content === null || content === undefined) return { text: '', images: 0 }
  if (!Array.isArray(content)) throw new Unusable(`Invalid type for '${param}'.`, param)
  const texts: string[] = []
  let images = 0
  for (const part of content) {
    const text = isRecord(part) && part['type'] === 'text' ? stringOrNull(part['text']) : null
    const image = isRecord(part) && part['type'] === 'image_url' ? part['image_url'] : null
    if (text !== null) texts.push(text)
    else if (isRecord(image) && typeof image['url'] === 'string') images += 1
    else throw new Unusable(`'${param}' may only hold parts of type 'text' and 'image_url'.`, param)
  }
  return { text: texts.join('\n'), images }
}

function readTool(value: unknown, index: number): Tool {
  const tool = readRecord(value, `tools[${index}]`)
  const made = readRecord(tool['function'], `tools[${index}].function`)
  const name = stringOrNull(made['name'])
  if (tool['type'] !== 'function' || name === null || !/^[\w-]{1,64}$/u.test(name)) {
    throw new Unusable(`Invalid 'tools[${index}]': expected a function with a name.`, `tools[${index}]`)
  }
  const { parameters } = made
  return {
    name,
    description: stringOrNull(made['description']) ?? '',
    parameters: isRecord(parameters) ? parameters : { type: 'object', properties: {} },
  }
}

function readToolChoice(value: unknown, tools: readonly Tool[]): ToolChoice {
  if (value === undefined || value === null) return 'auto'
  const whole = WHOLE_CHOICES.find((choice) => choice === value)
  if (whole === 'required' && tools.length === 0) {
    throw new Unusable("'tool_choice' is only allowed when 'tools' are specified.", 'tool_choice')
  }
  if (whole !== undefined) return whole
  const made = isRecord(value) ? value['function'] : null
  const name = isRecord(made) ? stringOrNull(made['name']) : null
  if (name === null || !tools.some((tool) => tool.name === name)) {
    throw new Unusable("Invalid value for 'tool_choice': it names none of the 'tools'.", 'tool_choice')
  }
  return { name }
}

function readFormat(format: unknown): ResponseFormat {
  if (format === undefined || format === null) return { kind: 'text' }
  const type = isRecord(format) ? format['type'] : null
  if (type === 'text') return { kind: 'text' }
  if (type === 'json_object') return { kind: 'json_object' }
  const wrapper = isRecord(format) && type === 'json_schema' ? format['json_schema'] : null
  if (!isRecord(wrapper)) throw new Unusable("Invalid value for 'response_format'.", 'response_format')
  const { schema } = wrapper
  const name = stringOrNull(wrapper['name'])
  if (!isRecord(schema) || name === null) {
    throw new Unusable("Missing required parameter: 'response_format.json_schema'.", 'response_format.json_schema')
  }
  return { kind: 'json_schema', name, description: stringOrNull(wrapper['description']) ?? '', schema }
}
