import {
  type ModelRequest,
  type PromptMessage,
  type ReasoningWish,
  type ResponseFormat,
  type Tool,
  type ToolChoice,
  plainMessage,
  plainRequest,
} from './request.ts'
import { type Body, Unusable, readCount, readList, readModel, readRecord, readTexts } from './request-fields.ts'
import { isRecord, numberOrNull, stringOrNull } from './json.ts'

/** A part of a message, before the parts between two cache marks are put together. */
interface Part {
  readonly role: string
  readonly text: string
  readonly hidden: string
  readonly images: number
  readonly isMarked: boolean
}

/** What adaptive thinking may take when the model is not set to any. */
const ADAPTIVE_TOKENS = 64
/** Anthropic's own floor for a thinking budget. */
const MIN_BUDGET_TOKENS = 1024
const OWN_TOOL = /^(web_search|web_fetch|code_execution)_\d{8}$/u

/** Reads the body of Anthropic's `POST /v1/messages`. */
export function readMessagesRequest(body: Body): ModelRequest {
  const model = readModel(body)
  const maxTokens = readCount(body, 'max_tokens')
  if (maxTokens === null) throw new Unusable('max_tokens: Field required', 'max_tokens')
  const messages = readList(body, 'messages')
  if (messages.length === 0) throw new Unusable('messages: at least one message is required', 'messages')
  const offered = readList(body, 'tools').map((tool, index) => readRecord(tool, `tools.${index}`))
  const own = offered.flatMap((tool) => OWN_TOOL.exec(stringOrNull(tool['type']) ?? '')?.[1] ?? [])
  const tools = offered.filter((tool) => !OWN_TOOL.test(stringOrNull(tool['type']) ?? '')).map(readTool)
  return {
    ...plainRequest,
    model,
    messages: withLastMark(body, [...toMessages(readSystem(body['system'])), ...messages.flatMap(readMessage)]),
    maxTokens,
    isStream: body['stream'] === true,
    includesUsage: true,
    format: readFormat(body['output_config']),
    tools,
    areToolsMarked: offered.some(isMarked),
    toolChoice: readToolChoice(body['tool_choice'], tools),
    ownTools: own,
    stop: readTexts(body['stop_sequences'], 'stop_sequences'),
    reasoning: readThinking(body['thinking'], maxTokens),
  }
}

function readSystem(system: unknown): readonly Part[] {
  if (system === undefined || system === null || system === '') return []
  return readParts(system, { role: 'system', param: 'system' })
}

function readMessage(value: unknown, index: number): readonly PromptMessage[] {
  const param = `messages.${index}`
  const message = readRecord(value, param)
  const { role } = message
  if (role !== 'user' && role !== 'assistant' && role !== 'system') {
    throw new Unusable(`${param}.role: Input should be 'user' or 'assistant'`, param)
  }
  return toMessages(readParts(message['content'], { role, param: `${param}.content` }))
}

function readParts(content: unknown, place: { readonly role: string; readonly param: string }): readonly Part[] {
  const { role, param } = place
  if (typeof content === 'string') return [{ role, text: content, hidden: '', images: 0, isMarked: false }]
  if (!Array.isArray(content)) throw new Unusable(`${param}: expected a text or a list of blocks`, param)
  return content.map((block: unknown, index) => readBlock(block, { role, param: `${param}.${index}` }))
}

function readBlock(value: unknown, { role, param }: { readonly role: string; readonly param: string }): Part {
  const block = readRecord(value, param)
  const part = { role, text: '', hidden: '', images: 0, isMarked: isMarked(block) }
  switch (block['type']) {
    case 'text':
      if (typeof block['text'] !== 'string') throw new Unusable(`${param}.text: Field required`, param)
      return { ...part, text: block['text'] }
    case 'image':
      if (!isRecord(block['source'])) throw new Unusable(`${param}.source: Field required`, param)
      return { ...part, images: 1 }
    case 'tool_use':
      return { ...part, hidden: JSON.stringify({ name: block['name'], arguments: block['input'] }) }
    case 'tool_result': {
      const parts = readParts(block['content'] ?? '', { role: 'tool', param: `${param}.content` })
      const images = parts.reduce((sum, each) => sum + each.images, 0)
      return { ...part, role: 'tool', text: parts.map((each) => each.text).join('\n'), images }
    }
    case 'thinking':
    case 'redacted_thinking':
      // Anthropic drops the thinking of earlier turns from the prompt, and does not bill it again.
      return part
    default:
      throw new Unusable(`${param}.type: unknown type of block: ${String(block['type'])}`, param)
  }
}

/** One message for the parts of one role between two cache marks. */
function toMessages(parts: readonly Part[]): readonly PromptMessage[] {
  const messages: PromptMessage[] = []
  let isOpen = false
  for (const part of parts) {
    const last = messages.at(-1)
    const isSame = last !== undefined && last.role === part.role
    if (isSame && isOpen) {
      messages[messages.length - 1] = {
        ...last,
        text: [last.text, part.text].filter((text) => text !== '').join('\n'),
        hidden: last.hidden + part.hidden,
        images: last.images + part.images,
        isMarked: part.isMarked,
      }
    } else {
      messages.push({ ...plainMessage, ...part, isContinued: isSame })
    }
    isOpen = !part.isMarked
  }
  return messages
}

/** A mark of the whole request stands for one at its end. */
function withLastMark(body: Body, messages: readonly PromptMessage[]): readonly PromptMessage[] {
  const last = messages.at(-1)
  return isMarked(body) && last ? [...messages.slice(0, -1), { ...last, isMarked: true }] : messages
}

function isMarked(block: Body): boolean {
  return isRecord(block['cache_control'])
}

function readTool(tool: Body): Tool {
  const name = stringOrNull(tool['name'])
  const schema = tool['input_schema']
  if (name === null || !/^[\w-]{1,128}$/u.test(name) || !isRecord(schema)) {
    throw new Unusable('tools: a tool needs a name of letters, digits, _ and -, and an input_schema', 'tools')
  }
  return { name, description: stringOrNull(tool['description']) ?? '', parameters: schema }
}

function readToolChoice(value: unknown, tools: readonly Tool[]): ToolChoice {
  if (value === undefined || value === null) return 'auto'
  const choice = readRecord(value, 'tool_choice')
  if (choice['type'] === 'auto' || choice['type'] === 'none') return choice['type']
  if (choice['type'] === 'any' && tools.length > 0) return 'required'
  const name = choice['type'] === 'tool' ? stringOrNull(choice['name']) : null
  if (name === null || !tools.some((tool) => tool.name === name)) {
    throw new Unusable('tool_choice: it names none of the tools', 'tool_choice')
  }
  return { name }
}

function readFormat(config: unknown): ResponseFormat {
  const format = isRecord(config) ? config['format'] : null
  if (format === null || format === undefined) return { kind: 'text' }
  const schema = isRecord(format) && format['type'] === 'json_schema' ? format['schema'] : null
  if (!isRecord(schema)) throw new Unusable('output_config.format: expected a json_schema', 'output_config')
  return { kind: 'json_schema', name: 'answer', description: '', schema }
}

function readThinking(value: unknown, maxTokens: number): ReasoningWish {
  if (value === undefined || value === null) return 'none'
  const thinking = readRecord(value, 'thinking')
  const isShown = thinking['display'] !== 'omitted'
  if (thinking['type'] === 'disabled') return 'none'
  if (thinking['type'] === 'adaptive') return { budgetTokens: ADAPTIVE_TOKENS, isShown }
  const budgetTokens = thinking['type'] === 'enabled' ? numberOrNull(thinking['budget_tokens']) : null
  if (budgetTokens === null) throw new Unusable('thinking.budget_tokens: Field required', 'thinking')
  if (budgetTokens < MIN_BUDGET_TOKENS || budgetTokens >= maxTokens) {
    throw new Unusable('thinking.budget_tokens: at least 1024, and less than max_tokens', 'thinking')
  }
  return { budgetTokens, isShown }
}
