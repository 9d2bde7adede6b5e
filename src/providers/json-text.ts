/** Thrown for JSON that broke off, where nothing says so but its own text: somebody wrote it, and may have written more. */
export class JsonCut extends Error {
  override readonly name = 'JsonCut'
}

/** @throws SyntaxError */
export function parseJson(text: string): unknown {
  try {
    const parsed: unknown = JSON.parse(text)
    return parsed
  } catch {
    // Its own message would quote the answer.
    throw new SyntaxError('what came is not JSON')
  }
}

/** Undefined for what is not JSON. */
export function jsonIn(text: string): unknown {
  try {
    return parseJson(text)
  } catch {
    return undefined
  }
}

/**
 * The JSON that a whole body is. Some ends are told by nothing: a connection that closes is the end of a body without a
 * length, and the end of an upstream.
 *
 * @throws JsonCut where an object or a list begins and never ends; SyntaxError
 */
export function parseBody(text: string): unknown {
  try {
    return parseJson(text)
  } catch (error) {
    throw isOpen(text) ? new JsonCut('the answer ended before its JSON did') : error
  }
}

function isOpen(text: string): boolean {
  if (!/^\s*[{[]/.test(text)) return false
  let depth = 0
  let isText = false
  for (let at = 0; at < text.length; at += 1) {
    const sign = text[at]
    if (isText && sign === '\\') at += 1
    else if (sign === '"') isText = !isText
    else if (!isText && (sign === '{' || sign === '[')) depth += 1
    else if (!isText && (sign === '}' || sign === ']')) depth -= 1
  }
  return isText || depth > 0
}
