import type { AnswerCollector } from './answer-collector.ts'
import { messageUsageOf } from './anthropic-usage.ts'
import { UpstreamError, type Problem } from './problem.ts'
import { listOf, recordOf, textOf } from './untrusted.ts'

type Fields = Readonly<Record<string, unknown>>

/** Reads the events of one Messages stream, or a message that came in one piece, into an answer. */
export class MessageReader {
  readonly #answer: AnswerCollector
  #usageAtStart: unknown = null

  constructor(answer: AnswerCollector) {
    this.#answer = answer
  }

  /** False for what is no event of this API. Events and blocks of kinds that are not known here are passed over. */
  addEvent(body: unknown): boolean {
    const event = recordOf(body)
    switch (event?.['type']) {
      case 'message_start':
        this.#begin(recordOf(event['message']) ?? {})
        return true
      case 'content_block_start':
        this.#addBlock(event['index'], recordOf(event['content_block']) ?? {})
        return true
      case 'content_block_delta':
        this.#addPiece(event['index'], recordOf(event['delta']) ?? {})
        return true
      case 'message_delta':
        this.#end(recordOf(event['delta']) ?? {}, event['usage'])
        return true
      case 'content_block_stop':
      case 'message_stop':
      case 'ping':
        return true
      case 'error':
        throw new UpstreamError(problemOf(event))
      default:
        return false
    }
  }

  addWhole(body: unknown): boolean {
    const message = recordOf(body)
    if (message?.['type'] === 'error') throw new UpstreamError(problemOf(message))
    if (message?.['type'] !== 'message') return false
    this.#begin({ id: message['id'] })
    for (const [index, block] of listOf(message['content']).entries()) this.#addBlock(index, recordOf(block) ?? {})
    this.#end(message, message['usage'])
    return true
  }

  #begin(message: Fields): void {
    this.#answer.noteRequestId(message['id'])
    this.#usageAtStart = message['usage']
    // A running count: of a stream that is cut, its input is as good as known.
    if (message['usage'] != null) this.#answer.addUsage(messageUsageOf(message['usage']))
  }

  /** In a stream a block begins empty; an answer of one piece has all of it here. */
  #addBlock(index: unknown, block: Fields): void {
    this.#addPiece(index, block)
    if (block['type'] === 'redacted_thinking') this.#answer.first.addReasoning(textOf(block['data']))
    if (block['type'] !== 'tool_use') return
    const input = recordOf(block['input']) ?? {}
    const written = Object.keys(input).length > 0 ? JSON.stringify(input) : ''
    this.#answer.first.addToolCall({ at: index, id: block['id'], name: block['name'], arguments: written })
  }

  #addPiece(index: unknown, piece: Fields): void {
    this.#answer.first.addText(textOf(piece['text']))
    this.#answer.first.addReasoning(textOf(piece['thinking']))
    const json = textOf(piece['partial_json'])
    if (json !== '' && this.#answer.first.hasToolCallAt(index))
      this.#answer.first.addToolCall({ at: index, id: undefined, name: undefined, arguments: json })
  }

  #end(ended: Fields, usage: unknown): void {
    const reason = textOf(ended['stop_reason'])
    const sequence = textOf(ended['stop_sequence'])
    if (reason !== '') this.#answer.first.finish(normalReasons.get(reason) ?? reason, sequence)
    // An end that names no usage takes back what was counted before it.
    this.#answer.addUsage(usage == null ? null : messageUsageOf(usage, this.#usageAtStart))
  }
}

const normalReasons: ReadonlyMap<string, string> = new Map([
  ['end_turn', 'stop'],
  ['stop_sequence', 'stop'],
  ['max_tokens', 'length'],
  ['model_context_window_exceeded', 'length'],
  ['tool_use', 'tool_calls'],
  ['refusal', 'content_filter'],
])

/** `{ type: 'error', error: { type, message, details } }` */
export function problemOf(body: unknown): Problem {
  const fields = recordOf(body)
  const error = recordOf(fields?.['error']) ?? fields ?? {}
  return {
    status: null,
    codes: [textOf(recordOf(error['details'])?.['error_code']), textOf(error['type'])],
    message: textOf(error['message']) || 'the upstream sent an error without a message',
  }
}
