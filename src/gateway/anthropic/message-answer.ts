import type { AnswerDelta } from '#calls/call.ts'
import type { CallReceipt } from '#db/call-receipt.ts'
import type { AnswerWriter } from '../answer-stream.ts'
import type { Reply } from '../ask.ts'
import { paidInWords } from '../exchange.ts'
import type { EventStream } from '../sse.ts'

/** Usage in Anthropic's words: what was read from a cache, or written to it, is no part of the input there. */
interface AnthropicUsage {
  readonly input_tokens: number
  readonly cache_read_input_tokens: number
  readonly cache_creation_input_tokens: number
  readonly output_tokens: number
  readonly output_tokens_details: { readonly thinking_tokens: number }
  readonly server_tool_use: null
}

function anthropicUsage(receipt: CallReceipt | undefined): AnthropicUsage {
  const { input = 0, cachedInput = 0, cacheWrite = 0, output = 0, reasoning = 0 } = receipt?.usage ?? {}
  return {
    input_tokens: input - cachedInput - cacheWrite,
    cache_read_input_tokens: cachedInput,
    cache_creation_input_tokens: cacheWrite,
    output_tokens: output,
    output_tokens_details: { thinking_tokens: reasoning },
    server_tool_use: null,
  }
}

/** What Anthropic's answers have and ours never do. */
const NOTHING_ELSE = Object.freeze({ cache_creation: null, inference_geo: null, service_tier: 'standard', speed: null })

/** A whole message, as `POST /v1/messages` answers it. */
export function toMessage(model: string, reply: Reply) {
  const { text, toolCalls = [] } = reply.answer
  return {
    ...headOf(model, reply.callId),
    content: [
      ...(text === '' ? [] : [{ type: 'text' as const, text, citations: null }]),
      ...toolCalls.map(({ id, name, arguments: written }) => toolUse(id, name, inputOf(written))),
    ],
    ...endOf(reply),
    usage: { ...anthropicUsage(reply.receipt), ...NOTHING_ELSE },
  }
}

function headOf(model: string, callId: string) {
  return {
    id: `msg_${callId}`,
    type: 'message' as const,
    role: 'assistant' as const,
    model,
    container: null,
    diagnostics: null,
  }
}

function toolUse(id: string, name: string, input: object) {
  return { type: 'tool_use' as const, id, name, input, caller: { type: 'direct' as const } }
}

/** The API has an object there; what a model wrote that is none is told as it was, as the next turn takes it back. */
function inputOf(written: string): object {
  try {
    const input: unknown = JSON.parse(written)
    if (typeof input === 'object' && input !== null && !Array.isArray(input)) return input
  } catch {
    // Below.
  }
  return { arguments: written }
}

const STOP_REASONS: ReadonlyMap<string, string> = new Map([
  ['length', 'max_tokens'],
  ['tool_calls', 'tool_use'],
  ['content_filter', 'refusal'],
])

function endOf({ answer: { finishReason, stopSequence } }: Reply) {
  const ended = stopSequence === undefined ? 'end_turn' : 'stop_sequence'
  return {
    stop_reason: STOP_REASONS.get(finishReason ?? '') ?? ended,
    stop_sequence: stopSequence ?? null,
    stop_details: null,
  }
}

/** Writes an answer as the events of Anthropic's streams: one block after the other, each with a number. */
export class MessageWriter implements AnswerWriter {
  readonly #stream: Pick<EventStream, 'send'>
  readonly #head: object
  readonly #blockOfCall = new Map<number, number>()
  #blocks = 0
  #open: 'none' | 'text' | number = 'none'
  #hasBegun = false

  /** @param known the call, and what is known of its prompt before its answer */
  constructor(
    stream: Pick<EventStream, 'send'>,
    known: { readonly model: string; readonly callId: string; readonly inputTokens: number | undefined },
  ) {
    this.#stream = stream
    const usage = { ...anthropicUsage(undefined), ...NOTHING_ELSE, input_tokens: known.inputTokens ?? 0 }
    const begun = { content: [], stop_reason: null, stop_sequence: null, stop_details: null, usage }
    this.#head = { ...headOf(known.model, known.callId), ...begun }
  }

  piece(delta: AnswerDelta): void {
    this.#begin()
    if (delta.kind === 'text') {
      if (this.#open !== 'text') this.#openBlock('text', { type: 'text', text: '', citations: null })
      this.#send('content_block_delta', { index: this.#blocks - 1, delta: { type: 'text_delta', text: delta.text } })
      return
    }
    const { index, id = '', name = '', arguments: written } = delta
    if (!this.#blockOfCall.has(index)) {
      this.#openBlock(index, toolUse(id, name, {}))
      this.#blockOfCall.set(index, this.#blocks - 1)
    }
    if (written === '') return
    // A piece of a call that another has followed since goes to its own block, by its number.
    const piece = { type: 'input_json_delta', partial_json: written }
    this.#send('content_block_delta', { index: this.#blockOfCall.get(index), delta: piece })
  }

  end(given: Reply): void {
    this.#begin()
    this.#closeBlock()
    const { stop_reason, stop_sequence, stop_details } = endOf(given)
    this.#send('message_delta', {
      delta: { stop_reason, stop_sequence, stop_details, container: null },
      usage: anthropicUsage(given.receipt),
      ...paidInWords(given),
    })
    this.#send('message_stop', {})
  }

  #begin(): void {
    if (this.#hasBegun) return
    this.#hasBegun = true
    this.#send('message_start', { message: this.#head })
    this.#send('ping', {})
  }

  #openBlock(what: 'text' | number, block: object): void {
    this.#closeBlock()
    this.#open = what
    this.#blocks += 1
    this.#send('content_block_start', { index: this.#blocks - 1, content_block: block })
  }

  #closeBlock(): void {
    if (this.#open !== 'none') this.#send('content_block_stop', { index: this.#blocks - 1 })
    this.#open = 'none'
  }

  #send(type: string, fields: object): void {
    this.#stream.send({ type, ...fields }, type)
  }
}
