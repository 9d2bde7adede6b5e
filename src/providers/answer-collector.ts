import type { Usage } from '#domain/pricing.ts'
import { AnswerChoice, AnswerTooLong, MAX_ID, type AnswerSink } from './answer-choice.ts'
import { believableUsage } from './believable-usage.ts'
import { NOTHING_RECEIVED, type AnswerDelta, type ProviderChatRequest, type Received } from './provider.ts'
import type { PromptFacts } from './prompt-facts.ts'

/** Far beyond any model's longest answer: an upstream that never ends is cut off. In characters. */
const MAX_ANSWER = 16_777_216

/** Puts what came of a request together from its pieces, whatever dialect they came in. */
export class AnswerCollector {
  readonly #facts: PromptFacts
  readonly #asked: number
  readonly #choices: AnswerChoice[] = []
  readonly #sink: AnswerSink
  #onDelta: ProviderChatRequest['onDelta']
  #onRequestId: ProviderChatRequest['onRequestId']
  #vectors: Received['vectors'] = []
  #characters = 0
  #reasoningBytes = 0
  #usage: Usage | null = null
  #providerRequestId: string | null = null

  /** @param options `choices`: how many answers were asked for */
  constructor(
    facts: PromptFacts,
    options: Pick<ProviderChatRequest, 'onDelta' | 'onRequestId'> & { readonly choices?: number | undefined } = {},
  ) {
    this.#facts = facts
    this.#asked = options.choices ?? 1
    this.#onDelta = options.onDelta
    this.#onRequestId = options.onRequestId
    this.#sink = {
      count: (piece) => this.#count(piece),
      addReasoning: (piece) => this.#addReasoning(piece),
      tell: (delta) => this.#tell(delta),
      forgetUsage: () => this.addUsage(null),
    }
  }

  /** How many answers were asked for. */
  get asked(): number {
    return this.#asked
  }

  /** One of the answers that were asked for, from 0; undefined for one that was not. */
  choice(index: number): AnswerChoice | undefined {
    if (index >= this.#asked) return undefined
    for (let next = this.#choices.length; next <= index; next += 1)
      this.#choices.push(new AnswerChoice(this.#sink, next))
    return this.#choices[index]
  }

  /** Of a dialect that has no more than one. */
  get first(): AnswerChoice {
    const first = this.#choices[0] ?? new AnswerChoice(this.#sink, 0)
    this.#choices[0] = first
    return first
  }

  /** Whether anything of an answer has come: from then on an error is a cut, whatever it says. */
  get hasBegun(): boolean {
    return this.#characters > 0 || this.#vectors.length > 0 || this.#choices.some(({ hasToolCalls }) => hasToolCalls)
  }

  /**
   * Whether the model has said that its answers are over. Some give fewer than were asked for: these are all when the bill
   * came behind them.
   */
  get isWhole(): boolean {
    if (this.#choices.length === 0 || !this.#choices.every(({ isFinished }) => isFinished)) return false
    return this.#choices.length === this.#asked || this.#usage !== null
  }

  addVectors(vectors: Received['vectors']): void {
    this.#vectors = vectors
  }

  /** The report in force is the last one: a count that came before the end is not the bill. */
  addUsage(usage: Usage | null): void {
    this.#usage = usage
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
    const [first, ...others] = this.#choices.map((each) => each.received())
    return {
      ...NOTHING_RECEIVED,
      ...first,
      others,
      vectors: this.#vectors,
      reasoningBytes: this.#reasoningBytes,
      usage: this.#usage && believableUsage({ ...this.#usage, images: this.#facts.images }, seen),
      providerRequestId: this.#providerRequestId,
    }
  }

  #addReasoning(piece: string): void {
    if (piece === '') return
    this.#count(piece)
    this.#reasoningBytes += Buffer.byteLength(piece)
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
