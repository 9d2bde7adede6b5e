import type { ToolDefinition } from '#contracts/chat.ts'
import type { OpenAiResponseRequest } from '#contracts/openai-responses.ts'

type Tools = OpenAiResponseRequest['tools']
type FunctionTool = Extract<NonNullable<Tools>[number], { type: 'function' }>

/** A function as a response names it. */
interface NamedFunction {
  readonly name: string
  readonly namespace?: string | undefined
}

/** Functions of a namespace are plain ones to a chat, with the namespace in their names. */
export function toolsOf(tools: Tools): readonly ToolDefinition[] {
  return (tools ?? []).flatMap((tool) =>
    tool.type === 'function'
      ? [toTool(tool, tool.name)]
      : tool.tools.map((each) => toTool(each, plainName({ namespace: tool.name, name: each.name }))),
  )
}

export function plainName({ namespace, name }: NamedFunction): string {
  return namespace === undefined ? name : `${namespace}__${name}`
}

/** What a call of a plain name is in a response. */
export function namedFunction(tools: Tools, plain: string): NamedFunction {
  for (const tool of tools ?? []) {
    if (tool.type === 'function') continue
    const found = tool.tools.find(({ name }) => plainName({ namespace: tool.name, name }) === plain)
    if (found) return { namespace: tool.name, name: found.name }
  }
  return { name: plain }
}

function toTool({ description, parameters, strict }: FunctionTool, name: string): ToolDefinition {
  return {
    name,
    ...(description != null && { description }),
    parameters: parameters ?? { type: 'object', properties: {} },
    ...(strict != null && { strict }),
  }
}
