"""Make `rvos_edge/nouns.json`, the nouns and their kinds, from the files of WordNet.

WordNet is Debian's package ``wordnet-base``; its licence goes into the file::

    python -m rvos_edge.trainer.data.generate.wordnet --dict /usr/share/wordnet

WordNet's chains of hypernyms are biology and philosophy ("carnivore", "instrumentality"). Only the words that people
say are kept as kinds (``KINDS``); every noun is filed under the nearest of them.
"""

from __future__ import annotations

KINDS = tuple(
    """person,animal,bird,fish,insect,reptile,snake,lizard,turtle,frog,spider,crab,butterfly,beetle,dog,cat,bear,fox,
wolf,horse,sheep,goat,cow,pig,deer,antelope,rabbit,squirrel,rodent,monkey,ape,seal,whale,shark,duck,parrot,owl,eagle,
hawk,penguin,swan,goose,chicken,elephant,camel,terrier,retriever,spaniel,hound,poodle,setter,shepherd dog,mastiff,
big cat,shellfish,worm,snail,vehicle,car,truck,bus,van,train,boat,ship,sailboat,aircraft,airplane,bicycle,motorcycle,
cart,wagon,sled,spacecraft,furniture,chair,table,bed,sofa,bench,cabinet,lamp,clothing,hat,cap,helmet,shoe,boot,coat,
jacket,dress,skirt,sweater,shirt,trouser,glove,scarf,necktie,swimsuit,glasses,watch,jewelry,musical instrument,guitar,
piano,drum,horn,flute,tool,knife,hammer,saw,pen,machine,engine,computer,telephone,camera,clock,screen,container,bottle,
bag,box,basket,bowl,cup,glass,jar,pot,pan,bucket,barrel,can,spoon,plate,food,fruit,vegetable,bread,cake,sandwich,drink,
meat,dessert,plant,flower,tree,mushroom,nut,building,house,church,shop,tower,bridge,fence,wall,roof,door,window,weapon,
gun,sword,ball,toy,doll,game,racket,sign,book,paper,rug,curtain,towel,blanket,pillow,umbrella,tent,flag,rope,chain,
wheel,ladder,stick,lock,key,light,candle,brush,mask,statue,boulder,mountain""".replace("\n", "").split(",")
)
"""Plain words for kinds of things, the only ones that a noun is said to be."""

_SENSES = {
    # Where WordNet's first sense is another thing, a further lemma of the one that is meant.
    "cow": "cattle", "pig": "swine", "chicken": "poulet", "hawk": "hawk", "trouser": "pant", "glasses": "spectacles",
    "screen": "CRT screen", "drink": "beverage", "meat": "meat", "horn": "brass", "light": "light source",
    "mouse": "computer mouse", "kite": "kite", "orange": "orange", "tie": "necktie", "remote": "remote control",
    "tv": "television set", "couch": "sofa", "sports ball": "ball", "hair drier": "hair dryer", "sink": "sink",
    "potted plant": "pot plant", "dining table": "dining-room table", "baseball glove": "baseball mitt",
    "glass": "drinking glass", "can": "tin can", "game": "board game", "plate": "plate", "vessel": "watercraft",
    "bowl": "bowl", "plant": "flora", "sign": "signboard", "watch": "ticker", "train": "railroad train",
    "drum": "membranophone", "seal": "seal", "ape": "ape", "cap": "cap", "shell": "shell", "pan": "cooking pan",
    "parking meter": "parking meter", "paper": "newspaper", "racket": "racquet", "nut": "nut", "stop sign": "",
    "fire hydrant": "fireplug", "wine glass": "wineglass", "cell phone": "cellphone", "teddy bear": "teddy bear",
    "bear": "bear", "hot dog": "red hot", "snowboard": "snowboard", "cake": "cake", "bat": "bat", "oven": "oven",
}  # fmt: skip
