import type { CountedMessage } from './tokens.ts'
import { isRecord, numberOrNull, parseJson, stringOrNull } from './json.ts'

export interface JsonSchemaFormat {
  readonly kind: 'json_schema'
  readonly name: string
  readonly description: string
  readonly schema: Readonly<Record<string, unknown>>
}

export type ResponseFormat = { readonly kind: 'text' } | { readonly kind: 'json_object' } | JsonSchemaFormat

/** The parts of a chat completion request that the sandbox acts on; others are accepted and have no effect. */
export interface ChatRequest {
  readonly model: string
  readonly messages: readonly CountedMessage[]
  readonly maxTokens: number | null
  readonly isStream: boolean
  readonly includesUsage: boolean
  readonly format: ResponseFormat
}

/** What is wrong with a request, in the terms of OpenAI's error object. */
export interface RequestProblem {
  readonly message: string
  readonly param: string | null
}

export type ParsedChatRequest =
  | { readonly ok: true; readonly request: ChatRequest }
  | { readonly ok: false; readonly problem: RequestProblem; readonly model: string | null }

const ROLES = new Set(['system', 'developer', 'user', 'assistant', 'tool', 'function'])

class Unusable extends Error {
  readonly param: string | null
  constructor(message: string, param: string | null) {
    super(message)
    this.param = param
  }
}

export function parseChatRequest(body: string): ParsedChatRequest {
  const parsed = parseJson(body)
  if (!parsed.ok || !isRecord(parsed.value)) {
    return {
      ok: false,
      problem: { message: 'We could not parse the JSON body of your request.', param: null },
      model: null,
    }
  }
  const { value } = parsed
  try {
    return { ok: true, request: readRequest(value) }
  } catch (error) {
    if (!(error instanceof Unusable)) throw error
    return { ok: false, problem: { message: error.message, param: error.param }, model: stringOrNull(value['model']) }
  }
}

function readRequest(body: Readonly<Record<string, unknown>>): ChatRequest {
  const model = stringOrNull(body['model'])
  if (model === null || model === '') throw new Unusable('you must provide a model parameter', 'model')
  const { messages } = body
  if (!Array.isArray(messages)) throw new Unusable("Missing required parameter: 'messages'.", 'messages')
  if (messages.length === 0) throw new Unusable("Invalid 'messages': empty array.", 'messages')
  if ((body['n'] ?? 1) !== 1) throw new Unusable("Unsupported value: 'n' must be 1.", 'n')
  const streamOptions = body['stream_options']
  return {
    model,
    messages: messages.map(readMessage),
    maxTokens: readLimit(body, 'max_completion_tokens') ?? readLimit(body, 'max_tokens'),
    isStream: body['stream'] === true,
    includesUsage: isRecord(streamOptions) && streamOptions['include_usage'] === true,
    format: readFormat(body['response_format']),
  }
}

function readMessage(message: unknown, index: number): CountedMessage {
  const param = `messages[${index}]`
  if (!isRecord(message)) throw new Unusable(`Invalid type for '${param}': expected an object.`, param)
  const role = stringOrNull(message['role'])
  if (role === null || !ROLES.has(role)) throw new Unusable(`Invalid value for '${param}.role'.`, `${param}.role`)
  return { role, text: readContent(message['content'], `${param}.content`) }
}

function readContent(content: unknown, param: string): string {
  if (typeof content === 'string') return content
  if (content === null || content === undefined) return ''
  if (!Array.isArray(content)) throw new Unusable(`Invalid type for '${param}'.`, param)
  return content
    .map((part: unknown) => {
      const text = isRecord(part) && part['type'] === 'text' ? stringOrNull(part['text']) : null
      if (text === null) throw new Unusable(`'${param}' may only hold parts of type 'text' for this model.`, param)
      return text
    })
    .join('\n')
}

function readLimit(body: Readonly<Record<string, unknown>>, param: string): number | null {
  if (body[param] === undefined || body[param] === null) return null
  const limit = numberOrNull(body[param])
  if (limit === null || !Number.isInteger(limit) || limit < 1) {
    throw new Unusable(`Invalid '${param}': integer below minimum value. Expected a value >= 1.`, param)
  }
  return limit
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
