import type { BilledUsage } from './bill.ts'
import { readChatRequest } from './chat-request.ts'
import type { AnswerWriter, Dialect } from './dialect.ts'
import type { WireError } from './errors.ts'
import { type Exchange, spoilUsage } from './exchange.ts'
import type { OutputEnd, OutputPiece, PieceKind } from './output.ts'

/** OpenAI's chat completions. */
export const chatDialect: Dialect = {
  name: 'chat',
  read: readChatRequest,
  adaptError: (error) => error,
  writeError: openAiError,
  openAnswer: openChatAnswer,
  idHeader: 'x-request-id',
  idPrefix: 'chatcmpl-',
}

export function openAiError({ message, type, code, param }: WireError): object {
  return { error: { message, type, code, param } }
}

function openChatAnswer(exchange: Exchange): AnswerWriter {
  const { request, faults, output } = exchange
  const head = {
    id: chatDialect.idPrefix + exchange.id,
    created: Math.floor(Date.now() / 1000),
    model: request.model,
  }
  const isEmpty = faults.emptyChoices === true
  // With `include_usage` every chunk has the field, null but in the last one (OpenAI's API reference).
  const noUsage = request.includesUsage && faults.usageMissing !== true ? ',"usage":null' : ''
  const open = `data: ${JSON.stringify({ ...head, object: 'chat.completion.chunk' }).slice(0, -1)},"choices":`
  const event = (index: number, delta: string, finishReason: string | null = null): string =>
    isEmpty
      ? `${open}[]${noUsage}}\n\n`
      : `${open}[{"index":${index},"delta":${delta},"logprobs":null,"finish_reason":${JSON.stringify(finishReason)}}]${noUsage}}\n\n`
  const ends = [output, ...output.others]
  return {
    body: (usage) => ({
      ...head,
      object: 'chat.completion',
      choices: isEmpty
        ? []
        : ends.map((end, index) => ({
            index,
            message: toMessage(end, output.pieces, index),
            logprobs: null,
            finish_reason: end.finishReason,
          })),
      ...(usage === null ? {} : { usage: toUsage(usage, exchange) }),
    }),
    start: () =>
      ends
        .map((end, index) => event(index, JSON.stringify({ role: 'assistant', content: '', ...openedCall(end) })))
        .join(''),
    piece: (piece) => (piece.kind === 'hidden' || piece.text === '' ? '' : event(piece.choice, deltaOf(piece))),
    end: (usage) => {
      const last =
        usage === null || !request.includesUsage
          ? ''
          : `${open}[],"usage":${JSON.stringify(toUsage(usage, exchange))}}\n\n`
      const finished = ends.map(({ finishReason }, index) => event(index, '{}', finishReason)).join('')
      return `${finished}${last}data: [DONE]\n\n`
    },
    error: (error) => `data: ${JSON.stringify(openAiError(error))}\n\n`,
  }
}

function toMessage({ toolCall }: OutputEnd, pieces: readonly OutputPiece[], choice: number): object {
  const textOf = (kind: PieceKind): string =>
    pieces.reduce((text, piece) => (piece.kind === kind && piece.choice === choice ? text + piece.text : text), '')
  const reasoning = textOf('reasoning')
  return {
    role: 'assistant',
    content: toolCall === null ? textOf('text') : null,
    refusal: null,
    ...(reasoning === '' ? {} : { reasoning_content: reasoning }),
    ...(toolCall === null ? {} : { tool_calls: [toCall(toolCall, textOf('arguments'))] }),
  }
}

/** The first chunk of a stream opens the call that the others bring the arguments of. */
function openedCall({ toolCall }: OutputEnd): object {
  return toolCall === null ? {} : { content: null, tool_calls: [{ index: 0, ...toCall(toolCall, '') }] }
}

function toCall({ id, name }: { readonly id: string; readonly name: string }, text: string): object {
  return { id: `call_${id}`, type: 'function', function: { name, arguments: text } }
}

function deltaOf({ kind, text }: OutputPiece): string {
  const value = JSON.stringify(text)
  if (kind === 'arguments') return `{"tool_calls":[{"index":0,"function":{"arguments":${value}}}]}`
  return kind === 'reasoning' ? `{"reasoning_content":${value}}` : `{"content":${value}}`
}

function toUsage(usage: BilledUsage, { faults }: Exchange): object {
  const uses = Object.entries(usage.toolUses).map(([tool, count]) => [`${tool}_requests`, count])
  return spoilUsage(
    {
      prompt_tokens: usage.promptTokens,
      completion_tokens: usage.completionTokens,
      total_tokens: usage.promptTokens + usage.completionTokens,
      prompt_tokens_details: { cached_tokens: usage.cachedTokens },
      completion_tokens_details: { reasoning_tokens: usage.reasoningTokens },
      // OpenRouter's field: OpenAI's own chat completions do not say how often they searched.
      ...(uses.length === 0 ? {} : { server_tool_use: Object.fromEntries(uses) }),
    },
    faults,
  )
}
