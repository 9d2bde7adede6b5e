import { createHash } from 'node:crypto'
import type { ModelRequest, Tool } from './request.ts'

/**
 * The tool that an answer calls, or null for an answer in words: the one that the choice names; when it must be any,
 * the one that the user's last words name, else the first; when it may be any, only one that they name, and only until
 * its result is there.
 */
export function chooseTool({ tools, toolChoice, messages }: ModelRequest): Tool | null {
  if (toolChoice === 'none' || tools.length === 0) return null
  if (typeof toolChoice === 'object') return tools.find(({ name }) => name === toolChoice.name) ?? null
  const words = messages.findLast((message) => message.role === 'user')?.text ?? ''
  const named = tools.find(({ name }) => new RegExp(`(?<![\\w-])${name}(?![\\w-])`, 'iu').test(words)) ?? null
  if (toolChoice === 'required') return named ?? tools[0] ?? null
  return messages.at(-1)?.role === 'tool' ? null : named
}

/** The same call has the same id, as the same request has the same answer. */
export function toolCallId(name: string, text: string): string {
  return createHash('sha256')
    .update(JSON.stringify([name, text]))
    .digest('hex')
    .slice(0, 24)
}
