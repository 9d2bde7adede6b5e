import type { AnswerChoice, AnswerDelta, CallAnswer } from '#calls/call.ts'
import type { CallReceipt } from '#db/call-receipt.ts'
import type { Reply } from '../ask.ts'

/** Usage in OpenAI's words. */
interface OpenAiUsage {
  readonly prompt_tokens: number
  readonly completion_tokens: number
  readonly total_tokens: number
  readonly prompt_tokens_details: { readonly cached_tokens: number }
  readonly completion_tokens_details: { readonly reasoning_tokens: number }
}

export function openAiUsage(receipt: CallReceipt | undefined): OpenAiUsage {
  const { input = 0, cachedInput = 0, output = 0, reasoning = 0 } = receipt?.usage ?? {}
  return {
    prompt_tokens: input,
    completion_tokens: output,
    total_tokens: input + output,
    prompt_tokens_details: { cached_tokens: cachedInput },
    completion_tokens_details: { reasoning_tokens: reasoning },
  }
}

/** A whole completion, as `POST /v1/chat/completions` answers it. */
export function toCompletion(model: string, reply: Reply, createdMs: number) {
  const { callId, answer, receipt } = reply
  return {
    id: completionId(callId),
    object: 'chat.completion' as const,
    created: Math.floor(createdMs / 1_000),
    model,
    choices: choicesOf(answer).map(toChoice),
    usage: openAiUsage(receipt),
  }
}

function choicesOf(answer: CallAnswer): readonly AnswerChoice[] {
  return [answer, ...(answer.others ?? [])]
}

function toChoice({ text, toolCalls = [], finishReason }: AnswerChoice, index: number) {
  // What stands beside answers in place of one is none of them.
  const isRefused = finishReason === 'content_filter'
  return {
    index,
    message: {
      role: 'assistant' as const,
      content: isRefused || (text === '' && toolCalls.length > 0) ? null : text,
      refusal: isRefused ? text : null,
      ...(toolCalls.length > 0 && {
        tool_calls: toolCalls.map((call) => ({
          id: call.id,
          type: 'function' as const,
          function: { name: call.name, arguments: call.arguments },
        })),
      }),
    },
    logprobs: null,
    finish_reason: finishReason ?? 'stop',
  }
}

/** Writes an answer as OpenAI's chunks. */
export class ChunkWriter {
  readonly #head: { readonly id: string; readonly created: number; readonly model: string }
  readonly #begun = new Set<number>()

  constructor(model: string, callId: string, createdMs: number) {
    this.#head = { id: completionId(callId), created: Math.floor(createdMs / 1_000), model }
  }

  /** The role stands in the first piece of each answer only. */
  piece(delta: AnswerDelta): object {
    const { choice = 0 } = delta
    const content = delta.kind === 'text' ? '' : null
    const role = this.#begun.has(choice) ? {} : { role: 'assistant' as const, content }
    this.#begun.add(choice)
    if (delta.kind === 'text') return this.#chunk(choice, { ...role, content: delta.text })
    const { index, id, name, arguments: written } = delta
    const isNew = id !== undefined
    return this.#chunk(choice, {
      ...role,
      tool_calls: [
        {
          index,
          ...(isNew && { id, type: 'function' }),
          function: { ...(name !== undefined && { name }), arguments: written },
        },
      ],
    })
  }

  /** A stored answer, as few pieces as there can be. */
  whole(answer: CallAnswer): readonly object[] {
    return choicesOf(answer).flatMap(({ text, toolCalls = [] }, choice) => [
      ...(text !== '' || toolCalls.length === 0 ? [this.piece({ kind: 'text', choice, text })] : []),
      ...toolCalls.map((call, index) => this.piece({ kind: 'tool_call', choice, index, ...call })),
    ])
  }

  /** The last piece of each answer. */
  ends(answer: CallAnswer): readonly object[] {
    return choicesOf(answer).map(({ finishReason }, choice) => this.#chunk(choice, {}, finishReason ?? 'stop'))
  }

  usage(receipt: CallReceipt | undefined, more: object): object {
    return { ...this.#chunk(0, {}), choices: [], usage: openAiUsage(receipt), ...more }
  }

  #chunk(index: number, delta: object, finishReason: string | null = null) {
    return {
      ...this.#head,
      object: 'chat.completion.chunk' as const,
      choices: [{ index, delta, logprobs: null, finish_reason: finishReason }],
    }
  }
}

function completionId(callId: string): string {
  return `chatcmpl-${callId}`
}
