import type { BilledUsage } from './bill.ts'
import type { AnswerWriter, Dialect } from './dialect.ts'
import type { WireError } from './errors.ts'
import { type Exchange, spoilUsage } from './exchange.ts'
import { readMessagesRequest } from './messages-request.ts'
import type { Output, OutputPiece, PieceKind } from './output.ts'
import { parseJson } from './json.ts'

/** Anthropic's Messages API. */
export const messagesDialect: Dialect = {
  name: 'messages',
  read: readMessagesRequest,
  adaptError,
  writeError: (error, id) => ({ type: 'error', error: toError(error), request_id: id }),
  openAnswer: openMessage,
  idHeader: 'request-id',
  idPrefix: 'msg_',
}

const ERROR_TYPES: ReadonlyMap<number, string> = new Map([
  [400, 'invalid_request_error'],
  [401, 'authentication_error'],
  [402, 'billing_error'],
  [404, 'not_found_error'],
  [413, 'request_too_large'],
  [429, 'rate_limit_error'],
  [529, 'overloaded_error'],
])

const STOP_REASONS = {
  stop: 'end_turn',
  length: 'max_tokens',
  tool_calls: 'tool_use',
  content_filter: 'refusal',
} as const satisfies Record<Output['finishReason'], string>

/** A thinking block carries a signature that a later turn has to bring back; any will do here. */
const SIGNATURE = 'c2FuZGJveA=='

type BlockKind = 'thinking' | 'text' | 'tool_use'
const BLOCK_KINDS = {
  reasoning: 'thinking',
  hidden: 'thinking',
  text: 'text',
  arguments: 'tool_use',
} as const satisfies Record<PieceKind, BlockKind>

/** Anthropic says these two in the words of a plain 400. */
function adaptError(error: WireError): WireError {
  if (error.code === 'insufficient_quota') {
    return { ...error, status: 400, message: 'Your credit balance is too low to access the Anthropic API.' }
  }
  return error.code === 'context_length_exceeded'
    ? { ...error, message: `prompt is too long: ${error.message}` }
    : error
}

function toError(error: WireError): object {
  return { type: ERROR_TYPES.get(error.status) ?? 'api_error', message: error.message }
}

function openMessage(exchange: Exchange): AnswerWriter {
  const { request, output, faults } = exchange
  const isEmpty = faults.emptyChoices === true
  const head = { id: messagesDialect.idPrefix + exchange.id, type: 'message', role: 'assistant', model: request.model }
  const stop = {
    stop_reason: output.stopSequence === null ? STOP_REASONS[output.finishReason] : 'stop_sequence',
    stop_sequence: output.stopSequence,
  }
  const blocks = openBlocks(output)
  return {
    body: (usage) => ({ ...head, content: isEmpty ? [] : toBlocks(output), ...stop, ...usageField(usage, exchange) }),
    start: (usage) => {
      const message = { ...head, content: [], stop_reason: null, stop_sequence: null, ...usageField(usage, exchange) }
      return toEvent('message_start', { message }) + toEvent('ping', {})
    },
    piece: (piece) => (isEmpty ? '' : blocks.add(piece)),
    end: (usage) =>
      (isEmpty ? '' : blocks.close()) +
      toEvent('message_delta', { delta: stop, ...usageField(usage, exchange) }) +
      toEvent('message_stop', {}),
    error: (error) => toEvent('error', { error: toError(error) }),
  }
}

/** Pieces of one kind are the deltas of one content block. */
function openBlocks(output: Output): { readonly add: (piece: OutputPiece) => string; readonly close: () => string } {
  let index = -1
  let open: BlockKind | null = null
  const close = (): string => {
    if (open === null) return ''
    const signature = { type: 'signature_delta', signature: SIGNATURE }
    const signed = open === 'thinking' ? toEvent('content_block_delta', { index, delta: signature }) : ''
    return signed + toEvent('content_block_stop', { index })
  }
  const add = (piece: OutputPiece): string => {
    const kind = BLOCK_KINDS[piece.kind]
    let text = ''
    if (kind !== open) {
      text = close()
      index += 1
      open = kind
      text += toEvent('content_block_start', { index, content_block: toBlock(kind, output, '') })
    }
    return piece.text === '' ? text : text + toEvent('content_block_delta', { index, delta: toDelta(kind, piece.text) })
  }
  return { add, close }
}

function toBlocks(output: Output): readonly object[] {
  const kinds = [...new Set(output.pieces.map((piece) => BLOCK_KINDS[piece.kind]))]
  return kinds.map((kind) => {
    const pieces = output.pieces.filter((piece) => BLOCK_KINDS[piece.kind] === kind)
    return toBlock(kind, output, pieces.map((piece) => piece.text).join(''))
  })
}

function toBlock(kind: BlockKind, { toolCall }: Output, text: string): object {
  if (kind === 'text') return { type: 'text', text, citations: null }
  if (kind === 'thinking') return { type: 'thinking', thinking: text, signature: text === '' ? '' : SIGNATURE }
  const parsed = parseJson(text)
  return {
    type: 'tool_use',
    id: `toolu_${toolCall?.id ?? ''}`,
    name: toolCall?.name ?? '',
    // Arguments that `max_tokens` cut short are no JSON; a stream shows them as they are.
    input: parsed.ok ? parsed.value : {},
  }
}

function toDelta(kind: BlockKind, text: string): object {
  if (kind === 'text') return { type: 'text_delta', text }
  return kind === 'thinking'
    ? { type: 'thinking_delta', thinking: text }
    : { type: 'input_json_delta', partial_json: text }
}

function usageField(usage: BilledUsage | null, { faults }: Exchange): object {
  if (usage === null) return {}
  const written = usage.cacheWriteTokens
  const uses = Object.entries(usage.toolUses).map(([tool, count]) => [`${tool}_requests`, count])
  return {
    usage: spoilUsage(
      {
        input_tokens: usage.promptTokens - usage.cachedTokens - written,
        cache_creation_input_tokens: written,
        cache_read_input_tokens: usage.cachedTokens,
        cache_creation: { ephemeral_5m_input_tokens: written, ephemeral_1h_input_tokens: 0 },
        output_tokens: usage.completionTokens,
        output_tokens_details: { thinking_tokens: usage.reasoningTokens },
        server_tool_use: uses.length === 0 ? null : Object.fromEntries(uses),
      },
      faults,
    ),
  }
}

function toEvent(type: string, fields: object): string {
  return `event: ${type}\ndata: ${JSON.stringify({ type, ...fields })}\n\n`
}
