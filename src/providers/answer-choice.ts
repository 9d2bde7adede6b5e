import type { ToolCall } from '#contracts/chat.ts'
import type { AnswerDelta, ReceivedChoice } from './provider.ts'
import { isIndex, textOf } from './untrusted.ts'

/** As many as one message of a chat may hold. */
const MAX_TOOL_CALLS = 128
/** Longest id, finish reason and stop sequence of a provider that are kept, in characters. */
export const MAX_ID = 200
const MAX_REASON = 64
const MAX_STOP = 1_000

interface ToolCallPiece {
  /** Where in the answer it belongs; undefined goes on with the last one. */
  readonly at: unknown
  readonly id: unknown
  readonly name: unknown
  readonly arguments: string
}

interface OpenToolCall {
  readonly id: string
  /** Empty until it is told. */
  name: string
  readonly arguments: string[]
}

/** Thrown when an answer is longer than anything that is taken. */
export class AnswerTooLong extends Error {
  override readonly name = 'AnswerTooLong'
}

/** What the answers to one prompt have in common. */
export interface AnswerSink {
  /** Counts a piece of any answer. @throws AnswerTooLong */
  count(piece: string): void
  addReasoning(piece: string): void
  tell(delta: AnswerDelta): void
  /** An answer has ended now: usage that was reported before is no bill. */
  forgetUsage(): void
}

/** Puts one of the answers to a prompt together from its pieces. */
export class AnswerChoice {
  readonly #sink: AnswerSink
  /** Which one it is; nothing for the first, which most prompts have alone. */
  readonly #place: { readonly choice?: number }
  readonly #text: string[] = []
  readonly #toolCalls: OpenToolCall[] = []
  readonly #toolCallAt = new Map<unknown, number>()
  #isRefusal = false
  #finishReason: string | null = null
  #stopSequence: string | null = null

  constructor(sink: AnswerSink, index: number) {
    this.#sink = sink
    this.#place = index === 0 ? {} : { choice: index }
  }

  get hasToolCalls(): boolean {
    return this.#toolCalls.length > 0
  }

  get isFinished(): boolean {
    return this.#finishReason !== null
  }

  addText(piece: string): void {
    if (piece === '') return
    this.#sink.count(piece)
    this.#text.push(piece)
    this.#sink.tell({ kind: 'text', ...this.#place, text: piece })
  }

  addReasoning(piece: string): void {
    this.#sink.addReasoning(piece)
  }

  /** What a model says in place of an answer: kept as evidence, and never handed on as one. */
  addRefusal(piece: string): void {
    if (piece === '') return
    this.#sink.count(piece)
    this.#text.push(piece)
    this.#isRefusal = true
  }

  addToolCall(piece: ToolCallPiece): void {
    if (this.#isNewToolCall(piece)) this.#openToolCall(piece)
    const index = this.#toolCallAt.get(piece.at) ?? this.#toolCalls.length - 1
    const call = this.#toolCalls[index]
    if (!call) return
    const isNamedNow = call.name === '' && textOf(piece.name) !== ''
    if (isNamedNow) call.name = textOf(piece.name).slice(0, MAX_ID)
    this.#sink.count(piece.arguments)
    call.arguments.push(piece.arguments)
    const named = isNamedNow ? { id: call.id, name: call.name } : {}
    this.#sink.tell({ kind: 'tool_call', ...this.#place, index, ...named, arguments: piece.arguments })
  }

  hasToolCallAt(at: unknown): boolean {
    return this.#toolCallAt.has(at)
  }

  /** @param sequence the text that ended it, where that is told */
  finish(reason: string, sequence = ''): void {
    if (this.#finishReason === null) this.#sink.forgetUsage()
    this.#finishReason = reason.slice(0, MAX_REASON)
    if (sequence !== '') this.#stopSequence = sequence.slice(0, MAX_STOP)
  }

  received(): ReceivedChoice {
    return {
      text: this.#text.join(''),
      toolCalls: this.#toolCalls.map(toToolCall),
      finishReason: this.#normalReason(),
      stopSequence: this.#stopSequence,
    }
  }

  /** Some say `stop` after tool calls, and a refusal is no answer of its own kind anywhere but at OpenAI. */
  #normalReason(): string | null {
    if (this.#finishReason !== 'stop') return this.#finishReason
    if (this.#isRefusal) return 'content_filter'
    return this.#toolCalls.length > 0 ? 'tool_calls' : 'stop'
  }

  /**
   * A new call stands at a new place, or is another name with another id at an old one: Gemini puts all its calls at 0 or
   * leaves the place out, and old versions of vLLM give each piece an id of its own, without a name.
   */
  #isNewToolCall({ at, id, name }: ToolCallPiece): boolean {
    const isNamed = textOf(name) !== ''
    const known = this.#toolCalls[this.#toolCallAt.get(at) ?? -1]
    if (!known) return isNamed || isIndex(at)
    if (!isNamed) return false
    return textOf(id) === '' ? at === undefined : textOf(id).slice(0, MAX_ID) !== known.id
  }

  #openToolCall({ at, id }: ToolCallPiece): void {
    const number = this.#toolCalls.length
    if (number === MAX_TOOL_CALLS) throw new AnswerTooLong(`the answer has more than ${MAX_TOOL_CALLS} tool calls`)
    this.#toolCalls.push({ id: textOf(id).slice(0, MAX_ID) || `call_${number}`, name: '', arguments: [] })
    this.#toolCallAt.set(at, number)
  }
}

function toToolCall(call: OpenToolCall): ToolCall {
  return { id: call.id, name: call.name, arguments: call.arguments.join('') || '{}' }
}
