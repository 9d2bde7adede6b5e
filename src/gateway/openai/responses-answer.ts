import type { AnswerDelta } from '#calls/call.ts'
import type { OpenAiResponseRequest } from '#contracts/openai-responses.ts'
import type { CallReceipt } from '#db/call-receipt.ts'
import { piecesOf, type AnswerWriter } from '../answer-stream.ts'
import type { Reply } from '../ask.ts'
import { paidInWords } from '../exchange.ts'
import type { EventStream } from '../sse.ts'
import { openAiUsage } from './chat-answer.ts'
import { namedFunction } from './responses-tools.ts'

type Status = 'in_progress' | 'completed' | 'incomplete'

type OutputItem =
  | { readonly type: 'message'; readonly id: string; text: string }
  | {
      readonly type: 'function_call'
      readonly id: string
      readonly call_id: string
      readonly name: string
      readonly namespace?: string | undefined
      arguments: string
    }

interface KnownResponse {
  readonly asked: OpenAiResponseRequest
  readonly callId: string
  readonly createdMs: number
}

/** A whole response, as `POST /v1/responses` answers it. */
export function toResponse(known: KnownResponse, given: Reply): object {
  const writer = new ResponseWriter({ send: () => {} }, known)
  for (const piece of piecesOf(given.answer)) writer.piece(piece)
  return writer.end(given)
}

/** Writes an answer as the events of OpenAI's responses: items that open, grow and close, each event with its number. */
export class ResponseWriter implements AnswerWriter {
  readonly #stream: Pick<EventStream, 'send'>
  readonly #known: KnownResponse
  readonly #items: OutputItem[] = []
  readonly #itemOfCall = new Map<number, number>()
  #sequence = 0

  constructor(stream: Pick<EventStream, 'send'>, known: KnownResponse) {
    this.#stream = stream
    this.#known = known
  }

  piece(delta: AnswerDelta): void {
    this.#begin()
    if (delta.kind === 'text') this.#addText(delta.text)
    else this.#addCall(delta)
  }

  /** @returns the response as a whole */
  end(given: Reply): object {
    this.#begin()
    // An empty answer is a message too.
    if (this.#items.length === 0) this.#openText()
    const status = statusOf(given)
    // What an answer ends with is as whole as the answer.
    const ofItem = (at: number) => (at === this.#items.length - 1 ? status : 'completed')
    this.#closeText(status)
    // Calls stay open until here: a provider may go back to one.
    for (const [at, item] of this.#items.entries()) {
      if (item.type === 'function_call') this.#closeCall(at, item, ofItem(at))
    }
    const output = this.#items.map((item, at) => toItem(item, ofItem(at)))
    const response = responseOf(this.#known, { status, output, given })
    this.#send(`response.${status}`, { response, ...paidInWords(given) })
    return response
  }

  /** The number of the next event. */
  get sequence(): number {
    return this.#sequence
  }

  #begin(): void {
    if (this.#sequence > 0) return
    const response = responseOf(this.#known, { status: 'in_progress', output: [] })
    this.#send('response.created', { response })
    this.#send('response.in_progress', { response })
  }

  #addText(text: string): void {
    const last = this.#items.at(-1)
    if (last?.type === 'message') last.text += text
    else this.#openText(text)
    this.#send('response.output_text.delta', { ...this.#placeOfText(), delta: text, logprobs: [] })
  }

  #openText(text = ''): void {
    const item = { type: 'message' as const, id: `msg_${this.#known.callId}_${this.#items.length}`, text }
    this.#items.push(item)
    const place = this.#placeOfText()
    this.#send('response.output_item.added', {
      output_index: place.output_index,
      item: { ...toItem({ ...item, text: '' }, 'in_progress'), content: [] },
    })
    this.#send('response.content_part.added', { ...place, part: toPart('') })
  }

  #closeText(status: Status): void {
    const item = this.#items.at(-1)
    if (item?.type !== 'message') return
    const place = this.#placeOfText()
    this.#send('response.output_text.done', { ...place, text: item.text, logprobs: [] })
    this.#send('response.content_part.done', { ...place, part: toPart(item.text) })
    this.#send('response.output_item.done', { output_index: place.output_index, item: toItem(item, status) })
  }

  #placeOfText() {
    return { item_id: this.#items.at(-1)?.id, output_index: this.#items.length - 1, content_index: 0 }
  }

  #addCall({ index, id = '', name = '', arguments: written }: Extract<AnswerDelta, { kind: 'tool_call' }>): void {
    const known = this.#itemOfCall.get(index)
    const at = known ?? this.#openCall(index, { id, name })
    const item = this.#items[at]
    if (item?.type !== 'function_call' || written === '') return
    item.arguments += written
    this.#send('response.function_call_arguments.delta', { item_id: item.id, output_index: at, delta: written })
  }

  #openCall(index: number, { id, name }: { readonly id: string; readonly name: string }): number {
    this.#closeText('completed')
    const at = this.#items.length
    const item = {
      type: 'function_call' as const,
      id: `fc_${this.#known.callId}_${at}`,
      call_id: id,
      ...namedFunction(this.#known.asked.tools, name),
      arguments: '',
    }
    this.#items.push(item)
    this.#itemOfCall.set(index, at)
    this.#send('response.output_item.added', { output_index: at, item: toItem(item, 'in_progress') })
    return at
  }

  #closeCall(at: number, item: Extract<OutputItem, { type: 'function_call' }>, status: Status): void {
    const { id: item_id, arguments: written } = item
    this.#send('response.function_call_arguments.done', { item_id, output_index: at, arguments: written })
    this.#send('response.output_item.done', { output_index: at, item: toItem(item, status) })
  }

  #send(type: string, fields: object): void {
    this.#stream.send({ type, sequence_number: this.#sequence, ...fields }, type)
    this.#sequence += 1
  }
}

function toItem(item: OutputItem, status: Status): object {
  if (item.type === 'function_call') return { ...item, status }
  const { type, id, text } = item
  return { type, id, status, role: 'assistant', content: [toPart(text)] }
}

function toPart(text: string): object {
  return { type: 'output_text', text, annotations: [], logprobs: [] }
}

const INCOMPLETE: ReadonlyMap<string | null, string> = new Map([
  ['length', 'max_output_tokens'],
  ['content_filter', 'content_filter'],
])

function statusOf({ answer }: Reply): 'completed' | 'incomplete' {
  return INCOMPLETE.has(answer.finishReason) ? 'incomplete' : 'completed'
}

/** The response, with what was asked as OpenAI tells it again. */
function responseOf(
  { asked, callId, createdMs }: KnownResponse,
  is: { readonly status: Status; readonly output: readonly object[]; readonly given?: Reply },
): object {
  const { status, output, given } = is
  const reason = given && INCOMPLETE.get(given.answer.finishReason)
  return {
    id: `resp_${callId}`,
    object: 'response',
    created_at: Math.floor(createdMs / 1_000),
    status,
    background: false,
    error: null,
    incomplete_details: reason === undefined ? null : { reason },
    instructions: asked.instructions ?? null,
    max_output_tokens: asked.max_output_tokens ?? null,
    metadata: asked.metadata ?? {},
    model: asked.model,
    output,
    parallel_tool_calls: asked.parallel_tool_calls ?? true,
    previous_response_id: null,
    reasoning: { effort: asked.reasoning?.effort ?? null, summary: null },
    service_tier: 'default',
    store: false,
    temperature: asked.temperature ?? 1,
    text: { format: asked.text?.format ?? { type: 'text' } },
    tool_choice: asked.tool_choice ?? 'auto',
    tools: (asked.tools ?? []).map((tool) =>
      tool.type === 'function' ? { strict: null, parameters: null, ...tool } : tool,
    ),
    top_p: asked.top_p ?? 1,
    truncation: 'disabled',
    usage: given ? usageOf(given.receipt) : null,
  }
}

function usageOf(receipt: CallReceipt | undefined): object {
  const { prompt_tokens, completion_tokens, total_tokens, ...details } = openAiUsage(receipt)
  return {
    input_tokens: prompt_tokens,
    input_tokens_details: {
      cached_tokens: details.prompt_tokens_details.cached_tokens,
      cache_write_tokens: receipt?.usage?.cacheWrite ?? 0,
    },
    output_tokens: completion_tokens,
    output_tokens_details: details.completion_tokens_details,
    total_tokens,
  }
}
