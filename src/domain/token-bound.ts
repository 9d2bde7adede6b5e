/** What every chat format adds around one message, in tokens; the widest seen is 8 (role, separators, name). */
export const MESSAGE_OVERHEAD = 12
/** Priming of the answer and hidden begin/end marks. */
export const REQUEST_OVERHEAD = 16
/**
 * What a provider puts in front of a prompt with tools, or with a schema for its answer, beside their text. Anthropic names
 * up to 530 tokens for tools, and no number for schemas (docs.anthropic.com, "Pricing: tool use").
 */
export const TOOLS_OVERHEAD = 600

/** Length of a text in UTF-8 bytes, without an encoder (the still half has none). */
export function utf8Length(text: string): number {
  let bytes = text.length
  for (let index = 0; index < text.length; index += 1) {
    const code = text.charCodeAt(index)
    // A surrogate stands for half of four bytes where it has its other half, and for a mark of three where it has not.
    if (code >= 0x800) bytes += isPaired(text, index, code) ? 1 : 2
    else if (code >= 0x80) bytes += 1
  }
  return bytes
}

function isPaired(text: string, index: number, code: number): boolean {
  if (code < 0xd800 || code > 0xdfff) return false
  const other = text.charCodeAt(code < 0xdc00 ? index + 1 : index - 1)
  return code < 0xdc00 ? other >= 0xdc00 && other <= 0xdfff : other >= 0xd800 && other <= 0xdbff
}

/**
 * An upper bound of the prompt's tokens that needs no tokeniser: byte-level BPE and byte-fallback vocabularies never make
 * more tokens than the text has UTF-8 bytes. Four times too high for English prose, and never too low.
 *
 * @param texts one for each message
 * @param extra further text the provider puts into the prompt, such as a JSON schema
 */
export function inputTokenBound(texts: readonly string[], extra = ''): number {
  const content = texts.reduce((sum, text) => sum + utf8Length(text) + MESSAGE_OVERHEAD, 0)
  return content + utf8Length(extra) + REQUEST_OVERHEAD
}

/**
 * A lower bound of a text's tokens that needs no tokeniser: tokenisers split at blanks before they look words up. English
 * prose has some three words to four tokens; a language without blanks is one long word.
 */
export function leastTokensOf(text: string): number {
  return text.split(/\s+/).filter((word) => word !== '').length
}
