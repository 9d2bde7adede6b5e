import type { ToolCall } from '#contracts/chat.ts'
import type { Usage } from '#domain/pricing.ts'
import { believableUsage } from './believable-usage.ts'
import { NOTHING_RECEIVED, type AnswerDelta, type ProviderChatRequest, type Received } from './provider.ts'
import type { PromptFacts } from './prompt-facts.ts'
import { isIndex, textOf } from './untrusted.ts'

/** Far beyond any model's longest answer: an upstream that never ends is cut off. In characters. */
const MAX_ANSWER = 16_777_216
/** As many as one message of a chat may hold. */
const MAX_TOOL_CALLS = 128
/** Longest id, finish reason and stop sequence of a provider that are kept, in characters. */
const MAX_ID = 200
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

/** Puts an answer together from its pieces, whatever dialect they came in. */
export class AnswerCollector {
  readonly #facts: PromptFacts
  #onDelta: ProviderChatRequest['onDelta']
  #onRequestId: ProviderChatRequest['onRequestId']
  readonly #text: string[] = []
  readonly #toolCalls: OpenToolCall[] = []
  readonly #toolCallAt = new Map<unknown, number>()
  #vectors: Received['vectors'] = []
  #characters = 0
  #reasoningBytes = 0
  #isRefusal = false
  #finishReason: string | null = null
  #stopSequence: string | null = null
  #usage: Usage | null = null
  #providerRequestId: string | null = null

  constructor(facts: PromptFacts, listeners: Pick<ProviderChatRequest, 'onDelta' | 'onRequestId'> = {}) {
    this.#facts = facts
    this.#onDelta = listeners.onDelta
    this.#onRequestId = listeners.onRequestId
  }

  /** Whether anything of an answer has come: from then on an error is a cut, whatever it says. */
  get hasBegun(): boolean {
    return this.#characters > 0 || this.#toolCalls.length > 0 || this.#vectors.length > 0
  }

  /** Whether the model has said that its answer is over. */
  get isWhole(): boolean {
    return this.#finishReason !== null
  }

  addText(piece: string): void {
    if (piece === '') return
    this.#count(piece)
    this.#text.push(piece)
    this.#tell({ kind: 'text', text: piece })
  }

  addReasoning(piece: string): void {
    if (piece === '') return
    this.#count(piece)
    this.#reasoningBytes += Buffer.byteLength(piece)
  }

  /** What a model says in place of an answer: kept as evidence, and never handed on as one. */
  addRefusal(piece: string): void {
    if (piece === '') return
    this.#count(piece)
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
    this.#count(piece.arguments)
    call.arguments.push(piece.arguments)
    const named = isNamedNow ? { id: call.id, name: call.name } : {}
    this.#tell({ kind: 'tool_call', index, ...named, arguments: piece.arguments })
  }

  hasToolCallAt(at: unknown): boolean {
    return this.#toolCallAt.has(at)
  }

  addVectors(vectors: Received['vectors']): void {
    this.#vectors = vectors
  }

  /** The report in force is the last one: a count that came before the end is not the bill. */
  addUsage(usage: Usage | null): void {
    this.#usage = usage
  }

  finish(reason: string): void {
    if (this.#finishReason === null) this.#usage = null
    this.#finishReason = reason.slice(0, MAX_REASON)
  }

  noteStopSequence(sequence: string): void {
    if (sequence !== '') this.#stopSequence = sequence.slice(0, MAX_STOP)
  }

  noteRequestId(id: unknown): void {
    if (typeof id !== 'string' || id === '' || this.#providerRequestId !== null) return
    this.#providerRequestId = id.slice(0, MAX_ID)
    try {
      this.#onRequestId?.(this.#providerRequestId)
    } catch {
      // An answer that is being paid for is read to its end, whatever its listener thinks of it.
      this.#onRequestId = undefined
    }
  }

  received(): Received {
    // A count that came before the end is behind the text; it is kept for what it says of the prompt.
    const seen = { prompt: this.#facts.characters, answer: this.isWhole ? this.#characters : 0 }
    return {
      ...NOTHING_RECEIVED,
      text: this.#text.join(''),
      toolCalls: this.#toolCalls.map(toToolCall),
      vectors: this.#vectors,
      finishReason: this.#normalReason(),
      stopSequence: this.#stopSequence,
      reasoningBytes: this.#reasoningBytes,
      usage: this.#usage && believableUsage({ ...this.#usage, images: this.#facts.images }, seen),
      providerRequestId: this.#providerRequestId,
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

  #count(piece: string): void {
    this.#characters += piece.length
    if (this.#characters > MAX_ANSWER) throw new AnswerTooLong(`the answer has more than ${MAX_ANSWER} characters`)
  }

  #tell(delta: AnswerDelta): void {
    try {
      this.#onDelta?.(delta)
    } catch {
      // As with the request id: the listener is gone, the answer is not.
      this.#onDelta = undefined
    }
  }
}

function toToolCall(call: OpenToolCall): ToolCall {
  return { id: call.id, name: call.name, arguments: call.arguments.join('') || '{}' }
}
