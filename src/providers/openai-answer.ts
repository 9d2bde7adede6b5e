import type { AnswerChoice } from './answer-choice.ts'
import type { AnswerCollector } from './answer-collector.ts'
import { chatUsageOf } from './openai-usage.ts'
import { UpstreamError, type Problem } from './problem.ts'
import { isIndex, listOf, recordOf, textOf } from './untrusted.ts'

type Fields = Readonly<Record<string, unknown>>

/** Takes a chunk of a stream, or a completion that came in one piece. False for what is neither. */
export function addCompletion(body: unknown, answer: AnswerCollector): boolean {
  const completion = recordOf(body)
  if (!completion) return false
  if (completion['error'] || completion['object'] === 'error')
    throw new UpstreamError(problemOf(completion['error'] ?? completion))
  if (!Array.isArray(completion['choices'])) return false
  answer.noteRequestId(completion['id'])
  for (const [position, each] of listOf(completion['choices']).entries()) {
    const choice = recordOf(each)
    const target = choice && answer.choice(placeOf(choice, { position, asked: answer.asked }))
    if (target) addChoice(choice, target)
  }
  if (completion['usage'] != null) answer.addUsage(chatUsageOf(completion['usage']))
  return true
}

/** Whoever was asked for one answer may number it as he likes. */
function placeOf(
  { index }: Fields,
  { position, asked }: { readonly position: number; readonly asked: number },
): number {
  return asked > 1 && isIndex(index) ? index : position
}

function addChoice(choice: Fields, answer: AnswerChoice): void {
  if (choice['error']) throw new UpstreamError(problemOf(choice['error']))
  const piece = recordOf(choice['delta']) ?? recordOf(choice['message'])
  if (piece) addPiece(piece, answer)
  const reason = textOf(choice['finish_reason'])
  // An answer that broke off has no end, whatever OpenRouter calls it.
  if (reason !== '' && reason !== 'error') answer.finish(normalReasons.get(reason) ?? reason)
}

const normalReasons: ReadonlyMap<string, string> = new Map([
  ['eos', 'stop'],
  ['end_turn', 'stop'],
  ['function_call', 'tool_calls'],
  ['tool_use', 'tool_calls'],
  ['max_tokens', 'length'],
])

function addPiece(piece: Fields, answer: AnswerChoice): void {
  // DeepSeek and old vLLM; OpenRouter, Groq and new vLLM. Some send both, with the same text.
  answer.addReasoning(textOf(piece['reasoning_content']) || textOf(piece['reasoning']))
  addContent(piece['content'], answer)
  answer.addRefusal(textOf(piece['refusal']))
  for (const call of listOf(piece['tool_calls'])) addToolCall(call, answer)
}

/** Text, or Mistral's list of texts and thoughts. */
function addContent(content: unknown, answer: AnswerChoice): void {
  if (typeof content === 'string') answer.addText(content)
  for (const part of listOf(content)) {
    const fields = recordOf(part)
    if (fields?.['type'] === 'text') answer.addText(textOf(fields['text']))
    for (const thought of listOf(fields?.['thinking'])) answer.addReasoning(textOf(recordOf(thought)?.['text']))
  }
}

function addToolCall(call: unknown, answer: AnswerChoice): void {
  const fields = recordOf(call)
  const asked = recordOf(fields?.['function'])
  if (!fields || !asked) return
  answer.addToolCall({
    at: fields['index'],
    id: fields['id'],
    name: asked['name'],
    arguments: textOf(asked['arguments']),
  })
}

/** An error object of OpenAI's shape; OpenRouter and vLLM write the status where OpenAI has a code. */
export function problemOf(error: unknown): Problem {
  const fields = recordOf(error) ?? {}
  const status = Number(fields['code'] ?? Number.NaN)
  const isStatus = Number.isInteger(status) && status >= 400 && status < 600
  const isFlagged = Array.isArray(recordOf(fields['metadata'])?.['reasons'])
  return {
    status: isStatus ? status : null,
    codes: [isFlagged ? 'content_filter' : '', textOf(fields['code']), textOf(fields['type'])],
    message: textOf(fields['message']) || textOf(error) || 'the upstream sent an error without a message',
  }
}
