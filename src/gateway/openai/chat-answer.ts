import type { AnswerDelta } from '#calls/call.ts'
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

function openAiUsage(receipt: CallReceipt | undefined): OpenAiUsage {
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
  const toolCalls = answer.toolCalls ?? []
  return {
    id: completionId(callId),
    object: 'chat.completion' as const,
    created: Math.floor(createdMs / 1_000),
    model,
    choices: [
      {
        index: 0,
        message: {
          role: 'assistant' as const,
          content: answer.text === '' && toolCalls.length > 0 ? null : answer.text,
          refusal: null,
          ...(toolCalls.length > 0 && {
            tool_calls: toolCalls.map((call) => ({
              id: call.id,
              type: 'function' as const,
              function: { name: call.name, arguments: call.arguments },
            })),
          }),
        },
        logprobs: null,
        finish_reason: answer.finishReason ?? 'stop',
      },
    ],
    usage: openAiUsage(receipt),
  }
}

/** Writes an answer as OpenAI's chunks. */
export class ChunkWriter {
  readonly #head: { readonly id: string; readonly created: number; readonly model: string }
  #hasBegun = false

  constructor(model: string, callId: string, createdMs: number) {
    this.#head = { id: completionId(callId), created: Math.floor(createdMs / 1_000), model }
  }

  /** The role stands in the first piece only. */
  piece(delta: AnswerDelta): object {
    const role = this.#hasBegun ? {} : { role: 'assistant' as const, content: '' }
    this.#hasBegun = true
    if (delta.kind === 'text') return this.#chunk({ ...role, content: delta.text })
    const { index, id, name, arguments: written } = delta
    const isNew = id !== undefined
    return this.#chunk({
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

  end(finishReason: string | null): object {
    return this.#chunk({}, finishReason ?? 'stop')
  }

  usage(receipt: CallReceipt | undefined, more: object): object {
    return { ...this.#chunk({}), choices: [], usage: openAiUsage(receipt), ...more }
  }

  #chunk(delta: object, finishReason: string | null = null) {
    return {
      ...this.#head,
      object: 'chat.completion.chunk' as const,
      choices: [{ index: 0, delta, logprobs: null, finish_reason: finishReason }],
    }
  }
}

function completionId(callId: string): string {
  return `chatcmpl-${callId}`
}
