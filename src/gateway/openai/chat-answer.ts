import type { AnswerChoice, AnswerDelta } from '#calls/call.ts'
import type { CallReceipt } from '#db/call-receipt.ts'
import { choicesOf, type AnswerWriter } from '../answer-stream.ts'
import type { Reply } from '../ask.ts'
import { paidInWords } from '../exchange.ts'
import type { EventStream } from '../sse.ts'

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
export class ChunkWriter implements AnswerWriter {
  readonly #stream: Pick<EventStream, 'send' | 'write'>
  readonly #head: { readonly id: string; readonly created: number; readonly model: string }
  readonly #begun = new Set<number>()

  constructor(
    stream: Pick<EventStream, 'send' | 'write'>,
    { model, callId, createdMs }: { readonly model: string; readonly callId: string; readonly createdMs: number },
  ) {
    this.#stream = stream
    this.#head = { id: completionId(callId), created: Math.floor(createdMs / 1_000), model }
  }

  piece(delta: AnswerDelta): void {
    const { choice = 0 } = delta
    if (delta.kind === 'text') return this.#send(choice, { ...this.#roleOf(delta), content: delta.text })
    const { index, id, name, arguments: written } = delta
    const isNew = id !== undefined
    this.#send(choice, {
      ...this.#roleOf(delta),
      tool_calls: [
        {
          index,
          ...(isNew && { id, type: 'function' }),
          function: { ...(name !== undefined && { name }), arguments: written },
        },
      ],
    })
  }

  end({ answer, receipt, ...more }: Reply): void {
    for (const [choice, { finishReason }] of choicesOf(answer).entries()) {
      // An empty answer is one too.
      if (!this.#begun.has(choice)) this.piece({ kind: 'text', choice, text: '' })
      this.#send(choice, {}, finishReason ?? 'stop')
    }
    const paid = paidInWords({ answer, receipt, ...more })
    this.#stream.send({ ...this.#chunk([]), usage: openAiUsage(receipt), ...paid })
    this.#stream.write('data: [DONE]\n\n')
  }

  /** The role stands in the first piece of each answer only. */
  #roleOf({ choice = 0, kind }: AnswerDelta): object {
    if (this.#begun.has(choice)) return {}
    this.#begun.add(choice)
    return { role: 'assistant', content: kind === 'text' ? '' : null }
  }

  #send(index: number, delta: object, finishReason: string | null = null): void {
    this.#stream.send(this.#chunk([{ index, delta, logprobs: null, finish_reason: finishReason }]))
  }

  #chunk(choices: readonly object[]) {
    return { ...this.#head, object: 'chat.completion.chunk' as const, choices }
  }
}

function completionId(callId: string): string {
  return `chatcmpl-${callId}`
}
